#include "cache/policies/largest.h"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/base.h"

namespace tessera {
namespace {

// Smaller for a larger score, then for an earlier position: one comparison instead of two.
uint64_t Key(const ScoredToken& token) {
  const auto bits = std::bit_cast<uint32_t>(token.score + 0.0f);  // -0 is 0
  const uint32_t ascending = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{~ascending} << 32 | static_cast<uint32_t>(token.position);
}

constexpr int kBinBits = 11;  // sign, exponent and the first of a score's mantissa
uint64_t Bin(uint64_t key) { return key >> (64 - kBinBits); }

}  // namespace

std::vector<int32_t> Largest(const std::vector<ScoredToken>& tokens, int64_t count) {
  TESSERA_CHECK(0 <= count && count <= static_cast<int64_t>(tokens.size()));
  std::vector<int32_t> positions;
  if (count == 0) return positions;
  std::vector<uint64_t> keys(tokens.size());
  std::array<int64_t, size_t{1} << kBinBits> bins = {};
  for (size_t i = 0; i < tokens.size(); ++i) {
    keys[i] = Key(tokens[i]);
    ++bins[Bin(keys[i])];
  }
  // The key of rank `count` is in the bin in which so many are reached: only those are compared.
  uint64_t bin = 0;
  int64_t rank = count - 1;
  while (rank >= bins[bin]) rank -= bins[bin++];
  std::vector<uint64_t> near;
  near.reserve(bins[bin]);
  for (const uint64_t key : keys) {
    if (Bin(key) == bin) near.push_back(key);
  }
  std::nth_element(near.begin(), near.begin() + rank, near.end());
  positions.reserve(count);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (keys[i] <= near[rank]) positions.push_back(tokens[i].position);
  }
  return positions;
}

}  // namespace tessera
