// Resizes RGB8 images with the same bytes as Pillow's Image.resize.
//
// Source: Pillow's documented resampling. Two passes, the horizontal one first; filter support
// scaled by the shrink factor; weights in double, normalised, then 22-bit fixed point; rounding to
// 8 bit after each pass. Threads: safe. REQUIRES: positive sizes.
#pragma once

#include "vision/codecs/image.h"

namespace tessera {

enum class Resample { kBilinear = 2, kBicubic = 3 };  // Pillow's numbers, as in the config

Image Resize(const Image& in, int width, int height, Resample filter);

struct Window {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

// Returns the pixels of Resize(in, width, height, filter) inside `window`. It computes no other
// pixels, so a crop is cheap even if the whole resized image would be huge. REQUIRES: window lies
// inside width x height and is not empty.
Image ResizeWindow(const Image& in, int width, int height, const Window& window, Resample filter);

}  // namespace tessera
