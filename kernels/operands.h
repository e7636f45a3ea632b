// The argument types of ops.h: memory, dense layers, and the KV cache as one layer's attention
// reads it. Plain values. Pointers are device pointers of the backend unless said otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/base.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

// Memory of a backend, owned. Movable; the deleter knows the backend's allocator.
using Buffer = std::unique_ptr<uint8_t[], std::function<void(uint8_t*)>>;

// A dense layer y = x W^T + b in the backend's own layout.
struct Linear {
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // type of the stored weights
  Buffer weight;
  Buffer bias;  // float32 [out], or null
};

// One block of host weights: weight [rows, cols], and bias [rows] of the same dtype or null. A
// Linear may concatenate several along `out` (q, k, v; gate, up). Data may be misaligned.
struct LinearPart {
  const void* weight;
  const void* bias;
  int64_t rows;
};

struct RopeTable {  // float32 [max_positions, head_dim / 2] each
  const float* cos;
  const float* sin;
};

// The paged KV cache of one layer, for all sequences of a step.
struct KvLayerView {
  uint8_t* arena;  // base address of the arena
  KvGeometry geometry;
  const PageId* pages;       // page ids of all runs of this layer, run after run
  const KvRun* runs;         // runs of all sequences, sequence after sequence
  const int32_t* run_begin;  // [num_sequences + 1] offsets into runs (indptr)
};

// Announces calls of PagedAttention: one for each of `layers`, in any order.
struct AttentionMetadata {
  const int32_t* query_begin;  // the calls' argument
  int64_t num_sequences;
  int64_t heads;
  const KvLayerView* layers;  // [num_layers], a host array
  int64_t num_layers;
  uint32_t formats;   // bit f: a run may have format f
  int64_t rows;       // query rows of all sequences together
  int64_t most_rows;  // upper bound of one sequence's query rows
};

// A copy of one token to another slot.
struct TokenMove {
  KvSlot from;  // in a RAW16 page
  KvSlot to;
  PageId header = kNoPage;  // if HasHeader(format): the segment's, also written
};

enum class Activation { kNone, kGelu /* erf */, kQuickGelu, kSilu };

// An operation fused into a dense layer's input: the operation of that name, or the activation of
// the layer before. The values equal the separate operation's.
struct Prologue {
  // kSwiGlu: x is [rows, 2 * in].
  enum Kind { kNone, kRmsNorm, kLayerNorm, kSwiGlu, kActivation } kind = kNone;
  const float* weight = nullptr;  // [in], for the norms
  const float* bias = nullptr;    // [in], for kLayerNorm
  float eps = 0;
  Activation activation = Activation::kNone;
};

}  // namespace tessera
