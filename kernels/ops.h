// Every numeric operation of Tessera, stated once; a backend is one class that implements it.
//
// Pointers are device pointers of the backend (host memory on the CPU). Activations are float32 on
// the CPU backends. Shapes are row-major with the innermost axis last; `rows` counts tokens.
// Aliasing: an output may alias an input only where the comment says so.
// Threads: one thread at a time calls into one Ops. Calls are ordered; only CopyToHost and
// WaitEvent wait. Errors: a wrong shape is our bug (TESSERA_CHECK); a device that fails ends the
// process. Batch invariance: on the CPU backends every output row is bit-identical whatever other
// rows are in the same call; answers therefore do not depend on batching, chunking or preemption.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/operands.h"
#include "kernels/sampling_ops.h"
#include "kernels/statistics_ops.h"

namespace tessera {

struct QuantRule;  // quantize.h, which .cu files of C++17 cannot read

// What only KV policies ask for, and what follows a step's logits, is in the base classes.
class Ops : public StatisticsOps, public SamplingOps {
 public:
  virtual const char* name() const = 0;

  // --- memory ---------------------------------------------------------------------------------
  // 64-byte aligned, zeroed. Aborts when memory is exhausted: sizes are planned at start.
  virtual Buffer Allocate(int64_t bytes) = 0;
  // Of a device's own memory, what is not allocated; 0 where it has none.
  virtual int64_t FreeBytes() const { return 0; }
  virtual void CopyToDevice(void* dst, const void* src, int64_t bytes) = 0;
  virtual void CopyToHost(void* dst, const void* src, int64_t bytes) = 0;  // waits
  // Host memory that a device reads and writes by itself: from there CopyToDevice returns at once,
  // and the bytes must stay as they are until the host has waited for a later call.
  virtual Buffer AllocateStaging(int64_t bytes) = 0;
  // CopyToHost without waiting; `dst` is staging memory.
  virtual void BeginCopyToHost(void* dst, const void* src, int64_t bytes) = 0;
  // Whether calls return before they are done.
  virtual bool asynchronous() const { return false; }
  // Places in the order of calls: all that was called before RecordEvent(m) is done when
  // WaitEvent(m), of the last such place, returns; what was called later goes on. m in [0,
  // kEvents).
  static constexpr int kEvents = 13;
  virtual void RecordEvent(int event) = 0;
  virtual void WaitEvent(int) {}
  // What the calls between two marks took. REQUIRES: both set, and WaitEvent of `to` or of a later
  // place has returned.
  virtual double SecondsBetween(int from, int to) const = 0;
  // What is called from BeginGraph to EndGraph may reach the device as a whole (a CUDA graph), in
  // its place among the calls, when EndGraph is called: its kernels then follow one another faster
  // than by themselves. Only operations on rows, pictures and attention, RowPeaks and
  // AttentionColumns may be called meanwhile, and no Buffer may be freed that they use.
  virtual void BeginGraph() {}
  virtual void EndGraph() {}
  // Weights [sum of part rows, cols]; all parts have `dtype`; biases all present or all absent.
  virtual Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) = 0;

  // --- dense ----------------------------------------------------------------------------------
  // y[rows, out] = act(p(x[rows, in]) W^T + b), plus `residual`[rows, out] if not null.
  // `residual` may be y itself; x may not alias y. The prologue p is the separate operation's
  // values, bit for bit on the CPU.
  virtual void MatMul(const Linear& w, const float* x, int64_t rows, float* y,
                      Activation act = Activation::kNone, const float* residual = nullptr,
                      const Prologue& prologue = {}) = 0;

  // --- elementwise and norms ------------------------------------------------------------------
  // out[rows, cols] = table[ids[row], :]; table is `dtype`, ids are checked by the caller.
  virtual void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
                     float* out) = 0;
  // out[to_row[i], :] = in[i, :] for i < rows (image features into embeddings).
  virtual void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                           float* out) = 0;
  // out[i, :] = in[from_row[i], :] for i < rows.
  virtual void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                          float* out) = 0;
  // y = x / sqrt(mean(x^2) + eps) * w. y may be x.
  virtual void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
                       float* y) = 0;
  // y = (x - mean) / sqrt(var + eps) * w + b, biased variance. y may be x.
  virtual void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                         float eps, float* y) = 0;
  // y[rows, cols] = silu(gate) * up with x[rows, 2 * cols] = [gate | up].
  virtual void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) = 0;

  // --- vision ---------------------------------------------------------------------------------
  // u8 pixels [images, side, side, 3] -> float patches [images, (side/patch)^2, 3*patch*patch],
  // channel-major inside a patch as a convolution's weight wants: ((p/255) - mean[c]) / std[c],
  // each operation in float32 in this order.
  virtual void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                        const float mean[3], const float std[3], float* out) = 0;
  // Full (not causal) attention: qkv [images, tokens, 3, heads, dim] -> out [images, tokens,
  // heads, dim], scale 1/sqrt(dim).
  virtual void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads,
                            int64_t dim, float* out) = 0;

  // --- attention over the paged cache ---------------------------------------------------------
  // The formats that MoveTokens writes and PagedAttention reads; always RAW16.
  virtual bool Supports(Format format) const = 0;
  // qkv [rows, heads + 2 kv_heads, head_dim]: q and k are rotated (rotate-half: pairs (i, i+d/2))
  // by positions[row]; where transform[row] is not 0, q, k and v are then multiplied by H (below),
  // which leaves q k^T as it was. k and v are stored at slots[row] as RAW16, unless the page is
  // kNoPage. q, k and v are changed in place. `transform` is null: none.
  // H: the Walsh-Hadamard matrix in Sylvester's order over sqrt(head_dim), symmetric and its own
  // inverse; head_dim is then a power of two. In float32: sums and differences of elements 1 apart,
  // then 2, 4, ..., head_dim / 2; at last a product with the rounded 1 / sqrt(head_dim).
  virtual void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                            const uint8_t* transform, int64_t rows, int64_t heads,
                            const RopeTable& rope, const KvLayerView& kv) = 0;
  // out[rows, heads, head_dim] = softmax(q k^T / sqrt(head_dim)) v for the rows of sequence s,
  // query_begin[s] .. query_begin[s+1], over the sequence's runs, which may be of any formats in
  // any order; where a run says so, its logits are mapped before softmax (LogitMap). Causality
  // needs no positions: n > 1 query rows are themselves the last n stored tokens, in order, of the
  // last run, which is RAW16; row j of n sees everything but the last n - 1 - j tokens. q is the
  // first `heads` of qkv's rows, with row stride (heads + 2 kv_heads) * head_dim. heads is a
  // multiple of kv_heads (GQA). Where transformed[sequence] is not 0, what is stored was multiplied
  // by H, and so is every head of out: it is as if nothing had been. `transformed` is null: none.
  virtual void PagedAttention(const float* qkv, const int32_t* query_begin,
                              const uint8_t* transformed, int64_t num_sequences, int64_t heads,
                              const KvLayerView& kv, float* out) = 0;
  // Lets a backend plan these calls at once and choose kernels by what they need. Nobody has to:
  // PagedAttention gives the same without. query_begin, runs and run_begin must be there already
  // and stay as they are until the calls; what is not called before the next plan is forgotten.
  virtual void PlanAttention(const AttentionMetadata&) {}
  // Rows x heads, since the start, whose LogitMap had its slope held at 0.
  virtual int64_t clamped_slopes() const = 0;
  // Copies n tokens, K and V of all KV heads, from RAW16 pages into slots of pages of format `to`,
  // quantized by `rule` (quantize.h); RAW16 to RAW16 copies. Codes depend on the token alone, or,
  // where FillsWholePages(to), on the page's tokens: moves then come in groups that fill one page's
  // slots 0, 1, 2, ... Where HasHeader(to), neighbouring moves of one header are a whole segment,
  // whose ranges are written to the header. A page is not both source and destination of one call;
  // a slot is written once. Pages of all layers may mix. REQUIRES: Supports(to).
  virtual void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                          const QuantRule& rule, const TokenMove* moves, int64_t n) = 0;
};

}  // namespace tessera
