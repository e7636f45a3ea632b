// Finds stop strings in streamed text and holds back text that may become one.
//
// A stop string may span several tokens, and tokens may cut a character. The first Add after which
// a stop string is complete reports it; generation never continues to look for a longer one. Among
// several complete stop strings the one that starts first wins; among those with the same start,
// the longest. The matcher holds back the longest suffix of the text that is a proper prefix of a
// stop string, and nothing else.
//
// Cost: linear in the text times the number of stop strings, by one automaton for each (Knuth,
// Morris and Pratt 1977). Threads: one.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

class StopMatcher {
 public:
  // REQUIRES: no stop string is empty; Validate rejects those. With `include_stop`, the output ends
  // with the stop string that was found, else right before it.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;  // may be sent now; valid UTF-8 if the text and the stop strings are
    int matched = -1;  // index of the stop string that ends the generation; -1: none
  };
  // Appends generated text. On a match it drops the text behind the stop string.
  // REQUIRES: no earlier Add matched.
  Result Add(absl::string_view text);
  // Returns the text that was held back, when the generation ends for another reason.
  std::string Finish();

  const std::string& stop(int index) const { return stops_[index]; }

 private:
  // The automaton of one stop string.
  struct Progress {
    // [bytes of the stop string + 1] By bytes matched: the longest shorter prefix that matches too.
    std::vector<size_t> fallback;
    size_t bytes = 0;  // the text ends with this many first bytes of the stop string
  };

  std::vector<std::string> stops_;
  bool include_stop_;
  bool matched_ = false;
  std::vector<Progress> progress_;  // [stop strings]
  std::string held_;                // received, and not returned yet
};

}  // namespace tessera
