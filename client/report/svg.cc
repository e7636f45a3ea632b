#include "client/report/svg.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/report/html.h"

namespace tessera::client {

Svg::Svg(double width, double height, absl::string_view label, Size size) {
  html_ = absl::StrFormat("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\"", width,
                          height, EscapeHtml(label));
  if (size == Size::kFixed) {
    absl::StrAppendFormat(&html_, " width=\"%.0f\" height=\"%.0f\"", width, height);
  }
  html_ += ">\n";
}

void Svg::Add(absl::string_view element, absl::string_view attributes, absl::string_view title) {
  absl::StrAppend(&html_, "<", element, " ", attributes);
  if (title.empty()) {
    html_ += "/>\n";
  } else {
    const absl::string_view name = element.substr(0, element.find(' '));
    absl::StrAppend(&html_, "><title>", EscapeHtml(title), "</title></", name, ">\n");
  }
}

void Svg::Rect(double x, double y, double width, double height, absl::string_view attributes,
               absl::string_view title) {
  Add(absl::StrFormat("rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"", x, y, width,
                      height),
      attributes, title);
}

void Svg::Line(double x1, double y1, double x2, double y2, absl::string_view attributes) {
  Add(absl::StrFormat("line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\"", x1, y1, x2, y2),
      attributes, "");
}

void Svg::Circle(double x, double y, double radius, absl::string_view attributes,
                 absl::string_view title) {
  Add(absl::StrFormat("circle cx=\"%.2f\" cy=\"%.2f\" r=\"%.2f\"", x, y, radius), attributes,
      title);
}

void Svg::Path(absl::string_view commands, absl::string_view attributes) {
  Add(absl::StrCat("path d=\"", commands, "\""), attributes, "");
}

void Svg::Text(double x, double y, absl::string_view text, Anchor anchor, Ink ink) {
  const char* const name = anchor == Anchor::kStart    ? "start"
                           : anchor == Anchor::kMiddle ? "middle"
                                                       : "end";
  absl::StrAppendFormat(&html_, "<text%s x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\">%s</text>\n",
                        ink == Ink::kSoft ? " class=\"soft\"" : "", x, y, name, EscapeHtml(text));
}

void Svg::Html(absl::string_view html) { absl::StrAppend(&html_, html); }

std::string Svg::Render() const { return html_ + "</svg>\n"; }

}  // namespace tessera::client
