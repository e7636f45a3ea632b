#include "client/report/explain_html.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "client/cli/format.h"
#include "client/report/explain_charts.h"
#include "client/report/html.h"

namespace tessera::client {
namespace {

constexpr int kMaxSide = 64;  // patches in a row of an image

// The number of tokens by how they are stored (Legend).
using Counts = std::map<uint8_t, int64_t>;

// Returns the tokens of text and of images by format, and their bytes.
std::string ClassTable(const v1::Explanation& e) {
  std::vector<bool> is_image(e.text_size());
  for (const auto& image : e.images())
    std::fill_n(is_image.begin() + image.first(), image.count(), true);
  std::vector<std::string> header = {"class", "tokens", "evicted"};
  Counts by_class[2];  // text and images, summed over layers
  for (const auto& layer : e.layers()) {
    for (int t = 0; t < e.text_size(); ++t)
      ++by_class[is_image[t] ? 1 : 0][static_cast<uint8_t>(layer.stored()[t])];
  }
  std::vector<uint8_t> used;
  for (int f = 0; f < e.formats_size(); ++f) {
    const auto stored = static_cast<uint8_t>(f + 1);
    if (by_class[0].count(stored) + by_class[1].count(stored) == 0) continue;
    used.push_back(stored);
    header.push_back(e.formats(f).name());
  }
  header.push_back("bytes");
  std::vector<std::vector<std::string>> rows;
  const double layers = e.layers_size();
  double all = 0;
  for (const int c : {0, 1}) {
    double bytes = 0;
    const auto tokens = std::count(is_image.begin(), is_image.end(), c == 1);
    std::vector<std::string> row = {c == 0 ? "text" : "images", FormatCount(tokens),
                                    absl::StrFormat("%.1f", by_class[c][0] / layers)};
    for (const uint8_t stored : used) {
      row.push_back(absl::StrFormat("%.1f", by_class[c][stored] / layers));
      bytes += static_cast<double>(by_class[c][stored]) * e.formats(stored - 1).bytes_per_token();
    }
    row.push_back(FormatCount(std::llround(bytes)));
    all += bytes;
    rows.push_back(std::move(row));
  }
  double held = 0;
  for (const auto& layer : e.layers()) held += static_cast<double>(layer.bytes());
  std::vector<std::string> rest(header.size());
  rest.front() = "free slots, scales of images";
  rest.back() = FormatCount(std::llround(held - all));
  rows.push_back(std::move(rest));
  return HtmlTable(header, rows);
}

}  // namespace

absl::Status CheckExplanation(const v1::Explanation& e, size_t images) {
  const auto wrong = [](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("the server's explanation: ", what));
  };
  if (e.text_size() == 0 || e.layers_size() == 0) return wrong("empty");
  for (const auto& layer : e.layers()) {
    if (static_cast<int>(layer.stored().size()) != e.text_size()) return wrong("uneven layers");
    for (const char c : layer.stored()) {
      if (static_cast<uint8_t>(c) > e.formats_size()) return wrong("an unknown format");
    }
  }
  for (const auto& format : e.formats()) {
    if (!(format.bytes_per_token() >= 0)) return wrong("a format of negative size");
  }
  if (static_cast<size_t>(e.images_size()) != images) {
    return wrong(absl::StrCat(e.images_size(), " images, not ", images));
  }
  for (const auto& image : e.images()) {
    const int64_t side = image.count() > 0 ? SideOf(image) : 0;
    if (image.first() < 0 || side < 1 || side > kMaxSide || side * side != image.count() ||
        int64_t{image.first()} + image.count() > e.text_size()) {
      return wrong("an image outside the prompt, or not square");
    }
  }
  for (const auto& layer : e.layers()) {
    const int scores = e.score().empty() ? 0 : e.commit_tokens();
    const bool finite = std::all_of(layer.score().begin(), layer.score().end(),
                                    [](float v) { return std::isfinite(v); });
    if (layer.score_size() != scores || !finite)
      return wrong("scores that are missing or no numbers");
  }
  if (!e.score().empty() && e.commit_tokens() < 1) return wrong("scores of no tokens");
  if (e.commit_tokens() < 0 || e.commit_tokens() > e.text_size()) return wrong("no such commit");
  return absl::OkStatus();
}

std::string RenderExplainPage(const Explained& explained) {
  const v1::Explanation& e = explained.finished.explanation();
  TESSERA_CHECK(CheckExplanation(e, explained.images.size()).ok());
  const v1::Usage& usage = explained.finished.usage();
  std::string body = absl::StrCat(
      "<h1>What ", EscapeHtml(usage.kv_policy()), " kept</h1>\n<p><code>",
      EscapeHtml(explained.question), "</code></p>\n<p><strong>", EscapeHtml(explained.answer),
      "</strong></p>\n<p class=\"soft\">",
      absl::StrFormat("%s tokens, %s of images, in %s of KV cache at %.2f bits per value. Evicted, "
                      "mean over layers: %.1f of text, %.1f of images.",
                      FormatCount(e.text_size()), FormatCount(usage.image_tokens()),
                      FormatBytes(usage.kv_bytes()), usage.kv_mean_bits(),
                      usage.evicted_text_tokens(), usage.evicted_image_tokens()),
      "</p>\n", LegendHtml(), "<h2>Tokens by layer</h2>\n", TokenMap(e));
  if (!e.score().empty()) {
    absl::StrAppend(&body, "<h2>Scores: ", EscapeHtml(e.score()),
                    "</h2>\n<p class=\"soft\">The policy's scores of the tokens before the commit. "
                    "Brightness is the square root of the score relative to the layer's largest."
                    "</p>\n",
                    ScoreMap(e));
  }
  if (e.images_size() > 0) {
    absl::StrAppend(
        &body,
        "<h2>Patches of the images</h2>\n<p class=\"soft\">Covered patches are evicted, tinted "
        "ones are stored below 16 bit. Layers that store an image alike are shown once.</p>\n",
        ImagePatches(explained));
  }
  absl::StrAppend(&body, "<h2>Bytes by layer</h2>\n", BytesByLayer(e),
                  "<h2>Bytes by class</h2>\n<p class=\"soft\">Tokens are means over layers, bytes "
                  "are sums over layers.</p>\n",
                  ClassTable(e));
  return HtmlPage(absl::StrCat("What ", usage.kv_policy(), " kept"), body);
}

}  // namespace tessera::client
