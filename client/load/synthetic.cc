#include "client/load/synthetic.h"

#include <png.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/base.h"

namespace tessera::client {
namespace {

constexpr const char* kWords[] = {
    "the",  "of",    "and",   "to",   "in",   "is",    "you",   "that",  "it",   "he",    "was",
    "for",  "on",    "are",   "as",   "with", "his",   "they",  "at",    "be",   "this",  "have",
    "from", "or",    "one",   "had",  "by",   "word",  "but",   "not",   "what", "all",   "were",
    "we",   "when",  "your",  "can",  "said", "there", "use",   "an",    "each", "which", "she",
    "do",   "how",   "their", "if",   "will", "up",    "other", "about", "out",  "many",  "then",
    "them", "these", "so",    "some", "her",  "would", "make",  "like",  "time"};

// Unlike std::uniform_int_distribution, this gives the same numbers with every standard library.
uint64_t Below(std::mt19937_64& random, uint64_t limit) { return random() % limit; }

}  // namespace

std::string SyntheticPng(int side, uint64_t seed) {
  TESSERA_CHECK(side >= 1);
  std::mt19937_64 random(seed);
  std::vector<uint8_t> pixels(size_t{3} * side * side);
  uint8_t base[3];
  for (uint8_t& channel : base) channel = static_cast<uint8_t>(Below(random, 128));
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const uint64_t noise = random();
      uint8_t* pixel = &pixels[3 * (size_t{1} * y * side + x)];
      for (int c = 0; c < 3; ++c) {
        pixel[c] = static_cast<uint8_t>(base[c] + 100 * (c == 1 ? y : x) / side +
                                        ((noise >> (8 * c)) & 7));
      }
    }
  }
  for (int r = 0; r < 8; ++r) {
    const int x0 = static_cast<int>(Below(random, side)),
              y0 = static_cast<int>(Below(random, side));
    const int x1 = std::min<int>(side, x0 + 1 + Below(random, std::max(1, side / 3)));
    const int y1 = std::min<int>(side, y0 + 1 + Below(random, std::max(1, side / 3)));
    const uint64_t color = random();
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) {
        uint8_t* pixel = &pixels[3 * (size_t{1} * y * side + x)];
        for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(color >> (8 * c));
      }
    }
  }
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = image.height = static_cast<png_uint_32>(side);
  image.format = PNG_FORMAT_RGB;
  image.flags = PNG_IMAGE_FLAG_FAST;
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string out(bytes, '\0');
  TESSERA_CHECK(png_image_write_to_memory(&image, out.data(), &bytes, /*convert_to_8bit=*/0,
                                          pixels.data(), /*row_stride=*/0, nullptr));
  out.resize(bytes);
  out.shrink_to_fit();
  return out;
}

std::string SyntheticText(int words, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text;
  for (int i = 0; i < words; ++i) {
    if (i > 0) text += ' ';
    text += kWords[Below(random, std::size(kWords))];
  }
  return text;
}

}  // namespace tessera::client
