// The picture of what a KV policy did to one request: every token of every layer by the bits it is
// stored at, the patches that stayed over the pictures themselves, bytes by layer and by class.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

// A request as it was asked, and what came back.
struct Explained {
  std::string question;
  std::vector<std::string> images;  // their files' bytes
  std::string answer;
  v1::Finished finished;
};

// A server's explanation is foreign: INVALID_ARGUMENT unless its parts fit together and belong to
// as many images.
absl::Status CheckExplanation(const v1::Explanation& explanation, size_t images);

// A standalone page. REQUIRES: CheckExplanation is OK.
std::string RenderExplainPage(const Explained& explained);

}  // namespace tessera::client
