// Builds the charts of report pages (html.h) as <svg> elements.
//
// Lengths are in pixels. Texts and titles are escaped here. `attributes` are further attributes as
// HTML, such as `fill="red"`; they must not contain foreign text. Threads: one.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tessera::client {

class Svg {
 public:
  enum class Size { kScales, kFixed };
  enum class Anchor { kStart, kMiddle, kEnd };
  enum class Ink { kSoft, kFull };

  // `label` describes the chart to screen readers. A chart scales to the page unless it is fixed.
  Svg(double width, double height, absl::string_view label, Size size = Size::kScales);

  // Each of these adds one element. Browsers show a title while the pointer rests on the element.
  void Rect(double x, double y, double width, double height, absl::string_view attributes,
            absl::string_view title = "");
  void Line(double x1, double y1, double x2, double y2, absl::string_view attributes);
  void Circle(double x, double y, double radius, absl::string_view attributes,
              absl::string_view title);
  void Path(absl::string_view commands, absl::string_view attributes);
  void Text(double x, double y, absl::string_view text, Anchor anchor = Anchor::kStart,
            Ink ink = Ink::kSoft);
  // Adds elements as HTML.
  void Html(absl::string_view html);

  // Returns the whole element.
  std::string Render() const;

 private:
  void Add(absl::string_view element, absl::string_view attributes, absl::string_view title);

  std::string html_;
};

}  // namespace tessera::client
