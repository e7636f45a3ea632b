// Finds stop strings in streamed text, also across token and UTF-8 borders, and holds back text
// that may still become one.
//
// One thread.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;  // safe to send now
    int matched = -1;  // index of the stop string found: generation ends
  };
  // The earliest match wins; among those that start at the same place, the longest.
  Result Add(absl::string_view text);
  std::string Finish();  // text held back, when generation ends otherwise

  const std::string& stop(int index) const { return stops_[index]; }

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  size_t longest_ = 0;
  std::string held_;
};

}  // namespace tessera
