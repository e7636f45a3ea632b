// Shows what a policy did: how a sequence's cache stores every token, layer by layer.
//
// It is a copy, and outlives the cache. Threads: plain values.
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
    int64_t bytes = 0;            // the layer's pages
    std::vector<float> scores;    // [commit_tokens]; empty if the policy has no score
  };
  std::vector<int32_t> tokens;  // ids of the prompt, then of the stored answer
  std::vector<Layer> layers;
  struct Span {
    int32_t begin = 0, tokens = 0;
  };
  std::vector<Span> images;
  int32_t prompt_tokens = 0;
  int32_t commit_tokens = 0;  // prompt tokens that the policy compressed; 0: none
  std::string score_name;
  double bytes_per_token[kNumFormats] = {};  // in one layer, metadata included
};

}  // namespace tessera
