// An owned 8-bit RGB image and the limits that foreign image bytes are held to.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

// rgb is [height, width, 3], rows without padding. Owned; copyable; no thread affinity.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
};

// Checked against the header before anything of the image's size is allocated.
struct ImageLimits {
  int64_t max_bytes = 20 << 20;     // compressed
  int64_t max_pixels = 64'000'000;  // width * height
  int max_side = 16384;
};

}  // namespace tessera
