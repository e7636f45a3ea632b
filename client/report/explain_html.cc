#include "client/report/explain_html.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "client/cli/format.h"
#include "client/report/html.h"

namespace tessera::client {
namespace {

constexpr double kWidth = 960, kLabel = 64;  // of the token map; of its layers' names
constexpr double kRow = 14, kGap = 2;
constexpr double kThumb = 112;  // side of a picture
constexpr int kMaxSide = 64;    // patches in a row

int Bits(const v1::Explanation::Format& format) {
  return std::max(format.k_bits(), format.v_bits());
}

// What `stored` means, for people and for the eye.
class Legend {
 public:
  explicit Legend(const v1::Explanation& e) : e_(e) {}
  int BitsOf(uint8_t stored) const { return stored == 0 ? 0 : Bits(e_.formats(stored - 1)); }
  static const char* Color(int bits) {
    if (bits == 0) return "#3a4250";
    if (bits <= 1) return "#31688e";
    if (bits <= 2) return "#21918c";
    if (bits <= 4) return "#7ac15a";
    if (bits <= 8) return "#d8c83a";
    return "#e8743b";
  }
  std::string Name(uint8_t stored) const {
    return stored == 0 ? "evicted" : absl::StrCat(e_.formats(stored - 1).name());
  }
  static std::string Html() {
    std::string out = "<p>";
    for (const auto& [bits, name] :
         std::initializer_list<std::pair<int, const char*>>{{16, "16 bit"},
                                                            {8, "8 bit"},
                                                            {4, "4 bit"},
                                                            {2, "2 bit"},
                                                            {1, "1 bit"},
                                                            {0, "evicted"}}) {
      absl::StrAppend(&out, "<span style=\"white-space:nowrap;margin-right:1.1rem\"><span style=\"",
                      "display:inline-block;width:.8rem;height:.8rem;background:", Color(bits),
                      ";margin-right:.35rem;vertical-align:-1px\"></span>", name, "</span>");
    }
    return out + "</p>\n";
  }

 private:
  const v1::Explanation& e_;
};

uint8_t At(const v1::Explanation::Layer& layer, int token) {
  return static_cast<uint8_t>(layer.stored()[token]);
}

std::string TokenMap(const v1::Explanation& e) {
  const Legend legend(e);
  const int tokens = e.text_size();
  const double height = e.layers_size() * (kRow + kGap);
  const double step = (kWidth - kLabel) / tokens;
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"tokens by layer\">\n", kWidth,
      height + 36);
  for (int l = 0; l < e.layers_size(); ++l) {
    const v1::Explanation::Layer& layer = e.layers(l);
    const double y = l * (kRow + kGap);
    absl::StrAppendFormat(&out, "<text class=\"soft\" x=\"0\" y=\"%.1f\">layer %d</text>\n",
                          y + kRow - 3, l);
    for (int first = 0, end; first < tokens; first = end) {
      const uint8_t stored = At(layer, first);
      for (end = first + 1; end < tokens && At(layer, end) == stored; ++end) {
      }
      absl::StrAppendFormat(
          &out,
          "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.0f\" fill=\"%s\"><title>layer %d, "
          "tokens %d to %d: %s</title></rect>\n",
          kLabel + first * step, y, (end - first) * step, kRow,
          Legend::Color(legend.BitsOf(stored)), l, first, end - 1, EscapeHtml(legend.Name(stored)));
    }
  }
  for (int i = 0; i < e.images_size(); ++i) {
    const double left = kLabel + e.images(i).first() * step, width = e.images(i).count() * step;
    absl::StrAppendFormat(
        &out,
        "<path d=\"M%.1f %.1f v4 h%.1f v-4\" fill=\"none\" stroke=\"var(--soft)\"/>"
        "<text class=\"soft\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s%d</text>\n",
        left + 0.5, height + 2, std::max(1.0, width - 1), left + width / 2, height + 20,
        width > 60 ? "image " : "", i + 1);
  }
  if (e.commit_tokens() > 0) {
    const double x = kLabel + e.commit_tokens() * step;
    absl::StrAppendFormat(
        &out,
        "<line x1=\"%.1f\" y1=\"0\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--text)\" "
        "stroke-dasharray=\"3 2\"/><text x=\"%.1f\" y=\"%.1f\" "
        "text-anchor=\"end\">commit</text>\n",
        x, x, height + 24, x, height + 34);
  }
  return out + "</svg>\n";
}

// The policy's own numbers, brightest where largest in the layer; a column is the largest of a few
// tokens.
std::string ScoreMap(const v1::Explanation& e) {
  const int tokens = e.commit_tokens(), columns = std::min(tokens, 320);
  const double width = (kWidth - kLabel) * tokens / e.text_size() / columns;
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
      "aria-label=\"scores by layer\">\n",
      kWidth, e.layers_size() * (kRow + kGap));
  for (int l = 0; l < e.layers_size(); ++l) {
    const auto& score = e.layers(l).score();
    const double y = l * (kRow + kGap);
    const double most = *std::max_element(score.begin(), score.end());
    absl::StrAppendFormat(&out, "<text class=\"soft\" x=\"0\" y=\"%.1f\">layer %d</text>\n",
                          y + kRow - 3, l);
    for (int c = 0; c < columns; ++c) {
      const int first = c * tokens / columns, end = (c + 1) * tokens / columns;
      const double value = *std::max_element(score.begin() + first, score.begin() + end);
      absl::StrAppendFormat(
          &out,
          "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.0f\" fill=\"var(--accent)\" "
          "opacity=\"%.2f\"><title>layer %d, tokens %d to %d: %.4g</title></rect>\n",
          kLabel + c * width, y, width, kRow, most > 0 ? std::sqrt(std::max(value, 0.0) / most) : 0,
          l, first, end - 1, value);
    }
  }
  return out + "</svg>\n";
}

absl::string_view MimeOf(absl::string_view bytes) {
  if (bytes.substr(0, 4) == "\x89PNG") return "image/png";
  if (bytes.substr(0, 4) == "RIFF") return "image/webp";
  return "image/jpeg";
}

int SideOf(const v1::Explanation::ImageTokens& image) {
  return static_cast<int>(std::lround(std::sqrt(image.count())));
}

// One picture as one layer holds it.
std::string Thumbnail(const v1::Explanation& e, int image, const v1::Explanation::Layer& layer) {
  const Legend legend(e);
  const int side = SideOf(e.images(image)), first = e.images(image).first();
  const double patch = kThumb / side;
  std::string out = absl::StrFormat(
      "<svg width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\"><use href=\"#picture%d\"/>",
      kThumb, kThumb, kThumb, kThumb, image);
  for (int row = 0; row < side; ++row) {
    for (int begin = 0, end; begin < side; begin = end) {
      const int token = first + row * side;
      const uint8_t stored = At(layer, token + begin);
      for (end = begin + 1; end < side && At(layer, token + end) == stored; ++end) {
      }
      const int bits = legend.BitsOf(stored);
      if (bits >= 16) continue;
      absl::StrAppendFormat(
          &out,
          "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\" opacity=\"%s\"/>",
          begin * patch, row * patch, (end - begin) * patch, patch, Legend::Color(bits),
          bits == 0 ? ".9" : ".35");
    }
  }
  return out + "</svg>";
}

// Every picture, once for each stretch of layers that hold it alike.
std::string Pictures(const Explained& explained) {
  const v1::Explanation& e = explained.finished.explanation();
  const char* fit = e.image_fit() == v1::Explanation::IMAGE_FIT_STRETCH   ? "none"
                    : e.image_fit() == v1::Explanation::IMAGE_FIT_CONTAIN ? "xMidYMid meet"
                                                                          : "xMidYMid slice";
  std::string out = "<svg width=\"0\" height=\"0\" style=\"position:absolute\"><defs>\n";
  for (int i = 0; i < e.images_size(); ++i) {
    absl::StrAppendFormat(&out,
                          "<image id=\"picture%d\" width=\"%.0f\" height=\"%.0f\" "
                          "preserveAspectRatio=\"%s\" href=\"data:%s;base64,%s\"/>\n",
                          i, kThumb, kThumb, fit, MimeOf(explained.images[i]),
                          Base64(explained.images[i]));
  }
  out += "</defs></svg>\n";
  for (int i = 0; i < e.images_size(); ++i) {
    const auto patches = [&](int layer) {
      return absl::string_view(e.layers(layer).stored())
          .substr(e.images(i).first(), e.images(i).count());
    };
    absl::StrAppend(&out, "<p class=\"soft\">image ", i + 1,
                    "</p>\n<div style=\"display:flex;flex-wrap:wrap;gap:.75rem\">\n");
    for (int first = 0, end; first < e.layers_size(); first = end) {
      for (end = first + 1; end < e.layers_size() && patches(end) == patches(first); ++end) {
      }
      const auto evicted = std::count(patches(first).begin(), patches(first).end(), '\0');
      absl::StrAppend(&out, "<div>", Thumbnail(e, i, e.layers(first)),
                      "<span class=\"soft\" style=\"font-size:12px\">",
                      end - first == 1 ? absl::StrCat("layer ", first)
                                       : absl::StrCat("layers ", first, " to ", end - 1),
                      ", ", e.images(i).count() - evicted, " of ", e.images(i).count(),
                      "</span></div>\n");
    }
    out += "</div>\n";
  }
  return out;
}

// Stored tokens by what they are stored as.
using Counts = std::map<uint8_t, int64_t>;

std::string Budget(const v1::Explanation& e) {
  const Legend legend(e);
  int64_t most = 1;
  for (const auto& layer : e.layers()) most = std::max(most, layer.bytes());
  const double width = kWidth - kLabel - 220;
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
      "aria-label=\"bytes by layer\">\n",
      kWidth, e.layers_size() * (kRow + kGap));
  for (int l = 0; l < e.layers_size(); ++l) {
    const v1::Explanation::Layer& layer = e.layers(l);
    Counts counts;
    for (int t = 0; t < e.text_size(); ++t) ++counts[At(layer, t)];
    const double y = l * (kRow + kGap);
    absl::StrAppendFormat(&out, "<text class=\"soft\" x=\"0\" y=\"%.1f\">layer %d</text>\n",
                          y + kRow - 3, l);
    double x = kLabel;
    for (const auto& [stored, count] : counts) {
      if (stored == 0) continue;
      const double bytes = static_cast<double>(count) * e.formats(stored - 1).bytes_per_token();
      const double w = bytes / static_cast<double>(most) * width;
      absl::StrAppendFormat(&out,
                            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" "
                            "fill=\"%s\"><title>%s: %d tokens, %.0f bytes</title></rect>\n",
                            x, y, w, kRow, Legend::Color(legend.BitsOf(stored)),
                            EscapeHtml(legend.Name(stored)), count, bytes);
      x += w;
    }
    // What part-filled pages add.
    absl::StrAppendFormat(
        &out,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" fill=\"none\" "
        "stroke=\"var(--line)\"/>\n<text x=\"%.1f\" y=\"%.1f\">%s, %d of %d tokens</text>\n",
        kLabel, y + 0.5, static_cast<double>(layer.bytes()) / static_cast<double>(most) * width,
        kRow - 1, kWidth - 210, y + kRow - 3, FormatBytes(layer.bytes()), e.text_size() - counts[0],
        e.text_size());
  }
  return out + "</svg>\n";
}

std::string ClassTable(const v1::Explanation& e) {
  std::vector<bool> is_image(e.text_size());
  for (const auto& image : e.images())
    std::fill_n(is_image.begin() + image.first(), image.count(), true);
  std::vector<std::string> header = {"class", "tokens", "evicted"};
  Counts by_class[2];  // text, images; summed over layers
  for (const auto& layer : e.layers()) {
    for (int t = 0; t < e.text_size(); ++t) ++by_class[is_image[t] ? 1 : 0][At(layer, t)];
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
      absl::StrFormat("%s tokens, %s of images, in %s of KV cache at %.2f bits a value; evicted, "
                      "mean over layers: %.1f of text, %.1f of images.",
                      FormatCount(e.text_size()), FormatCount(usage.image_tokens()),
                      FormatBytes(usage.kv_bytes()), usage.kv_mean_bits(),
                      usage.evicted_text_tokens(), usage.evicted_image_tokens()),
      "</p>\n", Legend::Html(), "<h2>Tokens by layer</h2>\n", TokenMap(e));
  if (!e.score().empty()) {
    absl::StrAppend(&body, "<h2>What it judged by: ", EscapeHtml(e.score()),
                    "</h2>\n<p class=\"soft\">Of the tokens before the commit; the square root of "
                    "the share of the layer's largest.</p>\n",
                    ScoreMap(e));
  }
  if (e.images_size() > 0) {
    absl::StrAppend(
        &body,
        "<h2>Patches over the pictures</h2>\n<p class=\"soft\">Covered: evicted. Tinted: "
        "stored below 16 bit. Layers that hold a picture alike are shown once.</p>\n",
        Pictures(explained));
  }
  absl::StrAppend(&body, "<h2>Bytes by layer</h2>\n", Budget(e),
                  "<h2>Bytes by class</h2>\n<p class=\"soft\">Tokens are means over layers, bytes "
                  "are of all layers.</p>\n",
                  ClassTable(e));
  return HtmlPage(absl::StrCat("What ", usage.kv_policy(), " kept"), body);
}

}  // namespace tessera::client
