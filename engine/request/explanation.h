// Where a sequence's cache holds every token, layer by layer: what a policy did, for people to see.
//
// A copy: it outlives the cache that it tells of. Threads: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/layout/formats.h"

namespace tessera {

struct Explanation {
  static constexpr uint8_t kEvicted = 0;
  struct Layer {
    std::vector<uint8_t> stored;  // [tokens] kEvicted, or 1 + the Format
    int64_t bytes = 0;            // of the layer's pages
    std::vector<float> scores;    // [commit_tokens], or empty where the policy judges by none
  };
  std::vector<int32_t> tokens;  // ids: the prompt, then what of the answer is stored
  std::vector<Layer> layers;
  struct Span {
    int32_t begin = 0, tokens = 0;
  };
  std::vector<Span> images;
  int32_t prompt_tokens = 0;
  int32_t commit_tokens = 0;  // of the prompt; 0: the policy stores it as it is
  std::string score_name;
  double bytes_per_token[kNumFormats] = {};  // of one layer, metadata in the page included
};

}  // namespace tessera
