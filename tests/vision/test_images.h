// Helpers of the vision tests: golden tables, files, and the synthetic images that
// tests/golden/make_images.py defines.
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/digest.h"
#include "tests/support/paths.h"
#include "vision/codecs/image.h"

namespace tessera {

inline std::string GoldenPath(const std::string& name) {
  return SourcePath("tests/golden/images/" + std::string(name));
}

// Returns the file's content, or an empty string if it cannot be read.
inline std::string ReadGolden(const std::string& name) {
  std::ifstream in(GoldenPath(name), std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Returns the rows of a golden table without its line of versions.
inline std::vector<std::vector<std::string>> ReadTable(const std::string& name) {
  std::vector<std::vector<std::string>> rows;
  for (absl::string_view line : absl::StrSplit(ReadGolden(name), '\n', absl::SkipEmpty())) {
    if (line[0] != '#') rows.push_back(absl::StrSplit(line, '\t'));
  }
  return rows;
}

inline uint8_t Mix(uint64_t seed, uint64_t index) {
  uint64_t z = (seed << 32) + index + 1;
  z *= 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<uint8_t>(z ^ (z >> 31));
}

inline Image Synthetic(const std::string& kind, uint64_t seed, int width, int height) {
  Image image{width, height, {}};
  image.rgb.reserve(size_t{3} * width * height);
  const uint64_t cell = 1 + seed % 23;
  for (uint64_t y = 0; y < static_cast<uint64_t>(height); ++y) {
    for (uint64_t x = 0; x < static_cast<uint64_t>(width); ++x) {
      for (uint64_t c = 0; c < 3; ++c) {
        uint64_t value;
        if (kind == "noise") {
          value = Mix(seed, (y * width + x) * 3 + c);
        } else if (kind == "blocks") {
          value = Mix(seed, ((y / cell) * 4096 + x / cell) * 3 + c);
        } else if (c == 0) {  // gradient
          value = x * 255 / (width > 1 ? width - 1 : 1);
        } else {
          value = c == 1 ? y * 255 / (height > 1 ? height - 1 : 1) : (x + y + seed) % 256;
        }
        image.rgb.push_back(static_cast<uint8_t>(value));
      }
    }
  }
  return image;
}

inline std::string Sha256(const std::vector<uint8_t>& bytes) {
  return HexDigest(Hasher().Add(bytes.data(), bytes.size()).Finish());
}

}  // namespace tessera
