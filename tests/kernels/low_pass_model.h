// Models of the low-pass residuals in double: the values that a backend must compute, and the error
// allowed to it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/layout/page_layout.h"

namespace tessera::testing {

// Layers of RAW16 pages in random order, filled with tokens.
class Layers {
 public:
  Layers(const KvGeometry& geometry, int64_t tokens, uint64_t seed);
  const uint8_t* arena() const { return memory_[0].bytes; }
  const PageId* pages() const { return pages_.data(); }
  int64_t layer_pages() const { return pages_of_layer_; }
  int64_t Row() const { return int64_t{2} * geometry_.kv_heads * geometry_.head_dim; }
  // Returns channel i of all channels; K and V of a head are neighbours.
  uint16_t& At(int layer, int64_t token, int64_t i) {
    const auto dim = int64_t{geometry_.head_dim};
    const PageId page = pages_[layer * pages_of_layer_ + token / 16];
    return reinterpret_cast<uint16_t*>(
        memory_[page].bytes + Raw16Offset(geometry_.head_dim, static_cast<int>(i / dim / 2),
                                          i / dim % 2 == 1, static_cast<int>(token % 16)))[i % dim];
  }

 private:
  struct alignas(kPageUnitBytes) Unit {
    uint8_t bytes[kPageUnitBytes];
  };
  int64_t Pages() const { return geometry_.layers * pages_of_layer_; }

  KvGeometry geometry_;
  int64_t pages_of_layer_;
  std::vector<PageId> pages_;
  std::vector<Unit> memory_;
};

struct LowPassCase {
  KvGeometry geometry;
  int64_t stored, first, tokens, kept;
};

// The values that ops.h defines, from the definition of the DCT, and the error allowed to a float
// computation.
struct Expected {
  std::vector<float> values;  // [layers, tokens, 4]
  std::vector<double> bounds;
};

// Returns the residuals from the definition of the DCT. The error is that of `direct` float sums
// over all tokens, else of float transforms.
Expected PlainDct(Layers& layers, const LowPassCase& c, bool direct);

// Returns the residuals through a grid (kernels/cuda/low_pass/grid.cuh), from its definition, with
// its weights and filter as rounded. The bounds are the roundings of the grid's numbers and the
// doubt of the weights.
Expected OnGrid(Layers& layers, const LowPassCase& c);

}  // namespace tessera::testing
