// Finds stop strings in streamed text, also across token and UTF-8 borders, and holds back text
// that may still become one.
//
// The answer is given by the first Add after which any stop string is complete: generation never
// runs on to see whether a longer one would follow. Of all then complete, the earliest match wins;
// among those that start at the same place, the longest. What is held back is exactly the longest
// end of the text that is a proper prefix of some stop string. Time is linear in the text, times
// the number of stops (an automaton each, after Knuth, Morris and Pratt 1977). One thread.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

class StopMatcher {
 public:
  // Stop strings are bytes, none empty (CHECK; Validate refuses them).
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;  // safe to send now; valid UTF-8 if text and stops are
    int matched = -1;  // index of the stop string found: generation ends
  };
  // REQUIRES: nothing has matched yet. With `include_stop` the text ends with the stop string, else
  // just before it; what follows it in the last piece is dropped.
  Result Add(absl::string_view text);
  std::string Finish();  // text held back, when generation ends otherwise

  const std::string& stop(int index) const { return stops_[index]; }

 private:
  // Progress of one stop string: how many of its bytes the text ends with.
  struct Progress {
    std::vector<size_t> fallback;  // by bytes matched: the longest shorter prefix that also fits
    size_t bytes = 0;
  };

  std::vector<std::string> stops_;
  bool include_stop_;
  bool matched_ = false;
  std::vector<Progress> progress_;  // by stop
  std::string held_;
};

}  // namespace tessera
