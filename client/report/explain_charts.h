// The charts of an explanation page (explain_html.h), as HTML.
//
// REQUIRES: CheckExplanation accepts the explanation. Threads: functions only, safe.
#pragma once

#include <string>

#include "client/report/explain_html.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

// Returns the number of patches in a row of a square image.
int SideOf(const v1::Explanation::ImageTokens& image);

// Explains the colours of all charts.
std::string LegendHtml();
// Draws one row for each layer: its tokens by the bits that they are stored at.
std::string TokenMap(const v1::Explanation& explanation);
// Draws the policy's own scores, brightest for the largest one of the layer. A column shows the
// largest score of a few tokens.
std::string ScoreMap(const v1::Explanation& explanation);
// Draws every image, once for each range of layers that store its patches alike.
std::string ImagePatches(const Explained& explained);
// Draws one bar for each layer: its bytes by format.
std::string BytesByLayer(const v1::Explanation& explanation);

}  // namespace tessera::client
