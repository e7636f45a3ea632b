#include "client/report/explain_charts.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/byte_size.h"
#include "client/report/html.h"
#include "client/report/svg.h"

namespace tessera::client {
namespace {

constexpr double kWidth = 960, kLabel = 64;  // width of a chart and of its layers' names
constexpr double kRow = 14, kGap = 2;        // height of a layer's row, and the space below it
constexpr double kThumb = 112;               // side of an image

// Names and colours of the ways to store a token. `stored` is 0 for an evicted token, else the
// index of a format plus 1.
class Legend {
 public:
  explicit Legend(const v1::Explanation& e) : e_(e) {}
  int BitsOf(uint8_t stored) const {
    if (stored == 0) return 0;
    return std::max(e_.formats(stored - 1).k_bits(), e_.formats(stored - 1).v_bits());
  }
  std::string Fill(uint8_t stored) const {
    return absl::StrCat("fill=\"", Color(BitsOf(stored)), "\"");
  }
  std::string Name(uint8_t stored) const {
    return stored == 0 ? "evicted" : e_.formats(stored - 1).name();
  }

  static const char* Color(int bits) {
    if (bits == 0) return "#3a4250";
    if (bits <= 1) return "#31688e";
    if (bits <= 2) return "#21918c";
    if (bits <= 4) return "#7ac15a";
    if (bits <= 8) return "#d8c83a";
    return "#e8743b";
  }

 private:
  const v1::Explanation& e_;
};

uint8_t At(const v1::Explanation::Layer& layer, int token) {
  return static_cast<uint8_t>(layer.stored()[token]);
}

// Returns the end of the run of tokens before `end` that are stored like token `first`.
int RunEnd(const v1::Explanation::Layer& layer, int first, int end) {
  int next = first + 1;
  while (next < end && At(layer, next) == At(layer, first)) ++next;
  return next;
}

double RowOf(int layer) { return layer * (kRow + kGap); }

void LabelRow(int layer, Svg* svg) {
  svg->Text(0, RowOf(layer) + kRow - 3, absl::StrCat("layer ", layer));
}

absl::string_view MimeOf(absl::string_view bytes) {
  if (bytes.substr(0, 4) == "\x89PNG") return "image/png";
  if (bytes.substr(0, 4) == "RIFF") return "image/webp";
  return "image/jpeg";
}

// Draws one image, and on it how one layer stores its patches.
std::string Thumbnail(const v1::Explanation& e, int image, const v1::Explanation::Layer& layer) {
  const Legend legend(e);
  const int side = SideOf(e.images(image)), first = e.images(image).first();
  const double patch = kThumb / side;
  Svg svg(kThumb, kThumb, absl::StrCat("patches of image ", image + 1), Svg::Size::kFixed);
  svg.Html(absl::StrCat("<use href=\"#picture", image, "\"/>\n"));
  for (int row = 0; row < side; ++row) {
    const int begin = first + row * side;
    for (int token = begin, end; token < begin + side; token = end) {
      end = RunEnd(layer, token, begin + side);
      const uint8_t stored = At(layer, token);
      if (legend.BitsOf(stored) >= 16) continue;
      svg.Rect((token - begin) * patch, row * patch, (end - token) * patch, patch,
               absl::StrCat(legend.Fill(stored), " opacity=\"", stored == 0 ? ".9" : ".35", "\""));
    }
  }
  return svg.Render();
}

// Returns the images as definitions that thumbnails use.
std::string ImageDefinitions(const Explained& explained) {
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
  return out + "</defs></svg>\n";
}

}  // namespace

int SideOf(const v1::Explanation::ImageTokens& image) {
  return static_cast<int>(std::lround(std::sqrt(image.count())));
}

std::string LegendHtml() {
  std::string out = "<p>";
  for (const auto& [bits, name] :
       std::initializer_list<std::pair<int, const char*>>{{16, "16 bit"},
                                                          {8, "8 bit"},
                                                          {4, "4 bit"},
                                                          {2, "2 bit"},
                                                          {1, "1 bit"},
                                                          {0, "evicted"}}) {
    absl::StrAppend(
        &out, "<span style=\"white-space:nowrap;margin-right:1.1rem\"><span style=\"",
        "display:inline-block;width:.8rem;height:.8rem;background:", Legend::Color(bits),
        ";margin-right:.35rem;vertical-align:-1px\"></span>", name, "</span>");
  }
  return out + "</p>\n";
}

std::string TokenMap(const v1::Explanation& e) {
  const Legend legend(e);
  const int tokens = e.text_size();
  const double height = RowOf(e.layers_size());
  const double step = (kWidth - kLabel) / tokens;
  Svg svg(kWidth, height + 36, "tokens by layer");
  for (int l = 0; l < e.layers_size(); ++l) {
    LabelRow(l, &svg);
    for (int first = 0, end; first < tokens; first = end) {
      end = RunEnd(e.layers(l), first, tokens);
      const uint8_t stored = At(e.layers(l), first);
      svg.Rect(
          kLabel + first * step, RowOf(l), (end - first) * step, kRow, legend.Fill(stored),
          absl::StrFormat("layer %d, tokens %d to %d: %s", l, first, end - 1, legend.Name(stored)));
    }
  }
  for (int i = 0; i < e.images_size(); ++i) {
    const double left = kLabel + e.images(i).first() * step, width = e.images(i).count() * step;
    svg.Path(absl::StrFormat("M%.1f %.1f v4 h%.1f v-4", left + 0.5, height + 2,
                             std::max(1.0, width - 1)),
             "fill=\"none\" stroke=\"var(--soft)\"");
    svg.Text(left + width / 2, height + 20, absl::StrCat(width > 60 ? "image " : "", i + 1),
             Svg::Anchor::kMiddle);
  }
  if (e.commit_tokens() > 0) {
    const double x = kLabel + e.commit_tokens() * step;
    svg.Line(x, 0, x, height + 24, "stroke=\"var(--text)\" stroke-dasharray=\"3 2\"");
    svg.Text(x, height + 34, "commit", Svg::Anchor::kEnd, Svg::Ink::kFull);
  }
  return svg.Render();
}

std::string ScoreMap(const v1::Explanation& e) {
  const int tokens = e.commit_tokens(), columns = std::min(tokens, 320);
  const double width = (kWidth - kLabel) * tokens / e.text_size() / columns;
  Svg svg(kWidth, RowOf(e.layers_size()), "scores by layer");
  for (int l = 0; l < e.layers_size(); ++l) {
    const auto& score = e.layers(l).score();
    const double most = *std::max_element(score.begin(), score.end());
    LabelRow(l, &svg);
    for (int c = 0; c < columns; ++c) {
      const int first = c * tokens / columns, end = (c + 1) * tokens / columns;
      const double value = *std::max_element(score.begin() + first, score.begin() + end);
      const double opacity = most > 0 ? std::sqrt(std::max(value, 0.0) / most) : 0;
      svg.Rect(kLabel + c * width, RowOf(l), width, kRow,
               absl::StrFormat("fill=\"var(--accent)\" opacity=\"%.2f\"", opacity),
               absl::StrFormat("layer %d, tokens %d to %d: %.4g", l, first, end - 1, value));
    }
  }
  return svg.Render();
}

std::string ImagePatches(const Explained& explained) {
  const v1::Explanation& e = explained.finished.explanation();
  std::string out = ImageDefinitions(explained);
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

std::string BytesByLayer(const v1::Explanation& e) {
  const Legend legend(e);
  int64_t most = 1;
  for (const auto& layer : e.layers()) most = std::max(most, layer.bytes());
  const double pixels = (kWidth - kLabel - 220) / static_cast<double>(most);  // per byte
  Svg svg(kWidth, RowOf(e.layers_size()), "bytes by layer");
  for (int l = 0; l < e.layers_size(); ++l) {
    const v1::Explanation::Layer& layer = e.layers(l);
    std::map<uint8_t, int64_t> counts;  // tokens by how they are stored
    for (int t = 0; t < e.text_size(); ++t) ++counts[At(layer, t)];
    LabelRow(l, &svg);
    double x = kLabel;
    for (const auto& [stored, count] : counts) {
      if (stored == 0) continue;
      const double bytes = static_cast<double>(count) * e.formats(stored - 1).bytes_per_token();
      svg.Rect(x, RowOf(l), bytes * pixels, kRow, legend.Fill(stored),
               absl::StrFormat("%s: %d tokens, %.0f bytes", legend.Name(stored), count, bytes));
      x += bytes * pixels;
    }
    // The outline also covers the free slots of part-filled pages.
    svg.Rect(kLabel, RowOf(l) + 0.5, static_cast<double>(layer.bytes()) * pixels, kRow - 1,
             "fill=\"none\" stroke=\"var(--line)\"");
    svg.Text(kWidth - 210, RowOf(l) + kRow - 3,
             absl::StrFormat("%s, %d of %d tokens", FormatBytes(layer.bytes()),
                             e.text_size() - counts[0], e.text_size()),
             Svg::Anchor::kStart, Svg::Ink::kFull);
  }
  return svg.Render();
}

}  // namespace tessera::client
