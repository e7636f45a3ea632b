// Made-up pictures and prompts for load tests: of a given size, all different, the same for a seed.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::client {

// An RGB PNG of side x side pixels: a gradient with random rectangles and a little noise, so that
// it costs about what a real picture costs to decode. Different seeds give different pixels.
std::string SyntheticPng(int side, uint64_t seed);

// `words` common English words, separated by spaces.
std::string SyntheticText(int words, uint64_t seed);

}  // namespace tessera::client
