// Pillow's Image.resize for RGB8, byte for byte.
//
// Source: Pillow's documented resampling: two passes (horizontal first), support scaled by the
// shrink factor, weights in double, normalised, 22-bit fixed point, rounding to 8 bit between
// the passes. Threads: safe. REQUIRES: positive sizes.
#pragma once

#include "vision/codecs/image.h"

namespace tessera {

enum class Resample { kBilinear = 2, kBicubic = 3 };  // Pillow's numbers, as in preprocessor_config

Image Resize(const Image& in, int width, int height, Resample filter);

struct Window {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

// The pixels of Resize(in, width, height, filter) inside `window`, computed without the others: a
// crop costs no more than its inputs, however long the uncropped image would be.
// REQUIRES: window lies inside width x height and is not empty.
Image ResizeWindow(const Image& in, int width, int height, const Window& window, Resample filter);

}  // namespace tessera
