// What the operations of ops.h work on: memory, dense layers, the cache as one layer's attention
// reads it. Plain values; pointers are device pointers of the backend unless said otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/base.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

// Owned memory of a backend. Movable; the deleter knows the backend's allocator.
using Buffer = std::unique_ptr<uint8_t[], std::function<void(uint8_t*)>>;

// A dense layer y = x W^T + b in the backend's own layout.
struct Linear {
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // of the stored weights
  Buffer weight;
  Buffer bias;  // float32 [out], or null
};

// One [rows, cols] block of host weights; a Linear may be glued from several along `out`
// (q, k, v; gate, up). `bias` is null or [rows] of the same dtype. Data may be misaligned.
struct LinearPart {
  const void* weight;
  const void* bias;
  int64_t rows;
};

struct RopeTable {  // float32 [max_positions, head_dim / 2] each
  const float* cos;
  const float* sin;
};

// What one layer's attention reads, for all sequences of a step.
struct KvLayerView {
  uint8_t* arena;  // base address of the arena
  KvGeometry geometry;
  const PageId* pages;       // page ids of all runs of this layer, run after run
  const KvRun* runs;         // runs of all sequences, sequence after sequence
  const int32_t* run_begin;  // [num_sequences + 1] into runs
};

// Calls of PagedAttention that are to come: one for each of `layers`, in any order.
struct AttentionMetadata {
  const int32_t* query_begin;  // as in the calls
  int64_t num_sequences;
  int64_t heads;
  const KvLayerView* layers;  // [num_layers], a host array
  int64_t num_layers;
  uint32_t formats;   // bit f: a run may have format f
  int64_t rows;       // query rows of all sequences
  int64_t most_rows;  // of one, at most
};

struct TokenMove {
  KvSlot from;  // in a RAW16 page
  KvSlot to;
  PageId header = kNoPage;  // where the format has one: the segment's, written with it
};

enum class Activation { kNone, kGelu /* erf */, kQuickGelu, kSilu };

// What is done to the rows that a dense layer reads, as the operation of that name, or the layer
// before with that activation, would do it.
struct Prologue {
  // kSwiGlu: x is [rows, 2 * in].
  enum Kind { kNone, kRmsNorm, kLayerNorm, kSwiGlu, kActivation } kind = kNone;
  const float* weight = nullptr;  // of a norm, [in]
  const float* bias = nullptr;    // of LayerNorm, [in]
  float eps = 0;
  Activation activation = Activation::kNone;
};

}  // namespace tessera
