// Makes images and prompts of a given size for load tests. The same seed gives the same result;
// different seeds give different ones. Threads: functions only, safe.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::client {

// Returns an RGB PNG of side x side pixels: a gradient with random rectangles and a little noise,
// so that decoding costs about as much as for a real image.
std::string SyntheticPng(int side, uint64_t seed);

// Returns `words` common English words, separated by spaces.
std::string SyntheticText(int words, uint64_t seed);

}  // namespace tessera::client
