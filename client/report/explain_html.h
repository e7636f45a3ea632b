// The page that shows what a KV policy did to one request. It draws the bits of every token in
// every layer, the kept patches of each image, and the bytes by layer and class. Threads: functions
// only, safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

// A request and its result.
struct Explained {
  std::string question;
  std::vector<std::string> images;  // the bytes of their files
  std::string answer;
  v1::Finished finished;
};

// Checks an explanation, because it comes from outside. INVALID_ARGUMENT unless its parts are
// consistent and it describes `images` images.
absl::Status CheckExplanation(const v1::Explanation& explanation, size_t images);

// Returns a standalone HTML page (html.h). REQUIRES: CheckExplanation accepts the explanation.
std::string RenderExplainPage(const Explained& explained);

}  // namespace tessera::client
