// An owned 8-bit RGB image, and the limits for image bytes that come from outside.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

// An image: rgb is [height, width, 3] without row padding. Copyable; usable from any thread.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
};

// Limits that are checked against the header before memory of the image's size is allocated.
struct ImageLimits {
  int64_t max_bytes = 20 << 20;     // compressed
  int64_t max_pixels = 64'000'000;  // width * height
  int max_side = 16384;
};

}  // namespace tessera
