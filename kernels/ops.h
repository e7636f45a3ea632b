// Every numeric operation of Tessera, specified once. A backend is one class that implements it.
//
// Pointers are device pointers of the backend (host memory on the CPU). Activations are float32 on
// the CPU backends. Shapes are row-major with the innermost axis last; `rows` counts tokens. An
// output may alias an input only where the comment says so.
//
// Threads: one thread at a time calls into one Ops. Calls take effect in order; only CopyToHost and
// WaitEvent block. Errors: a wrong shape is a bug (TESSERA_CHECK); a failing device ends the
// process.
//
// Batch invariance: on the CPU backends every output row is bit-identical for every choice of the
// other rows in the call. Answers therefore do not depend on batching, chunking or preemption.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/operands.h"
#include "kernels/sampling_ops.h"
#include "kernels/statistics_ops.h"

namespace tessera {

struct QuantRule;  // quantize.h, which C++17 .cu files cannot include

// The base classes have the operations for KV policies' statistics and those that follow a step's
// logits.
class Ops : public StatisticsOps, public SamplingOps {
 public:
  virtual const char* name() const = 0;

  // --- memory ---------------------------------------------------------------------------------
  // Returns zeroed memory, aligned to 64 bytes. Ends the process when memory is exhausted, because
  // sizes are planned at start.
  virtual Buffer Allocate(int64_t bytes) = 0;
  // Returns the free bytes of the device's own memory; 0 if it has none.
  virtual int64_t FreeBytes() const { return 0; }
  virtual void CopyToDevice(void* dst, const void* src, int64_t bytes) = 0;
  virtual void CopyToHost(void* dst, const void* src, int64_t bytes) = 0;  // blocks
  // Returns pinned host memory, which the device copies from and to asynchronously. A CopyToDevice
  // from it returns at once; its bytes must not change until the host has waited for a later call.
  virtual Buffer AllocateStaging(int64_t bytes) = 0;
  // Starts a CopyToHost and does not block. REQUIRES: `dst` is staging memory.
  virtual void BeginCopyToHost(void* dst, const void* src, int64_t bytes) = 0;
  // Returns whether calls may return before they are done.
  virtual bool asynchronous() const { return false; }
  // Events, as in CUDA. WaitEvent(m) blocks until all calls before the last RecordEvent(m) are
  // done; it does not wait for later calls. m is in [0, kEvents).
  static constexpr int kEvents = 13;
  virtual void RecordEvent(int event) = 0;
  virtual void WaitEvent(int) {}
  // Returns the duration of the calls between two events. REQUIRES: both are recorded, and a
  // WaitEvent of `to` or of a later event has returned.
  virtual double SecondsBetween(int from, int to) const = 0;
  // Records the calls between BeginGraph and EndGraph as one graph (a CUDA graph), which EndGraph
  // launches in its place among the calls. Its kernels then follow each other faster than separate
  // launches. Between the two, only operations on rows, images and attention, RowPeaks and
  // AttentionColumns may be called, and no Buffer that they use may be freed. A backend may also
  // run the calls one by one.
  virtual void BeginGraph() {}
  virtual void EndGraph() {}
  // Returns a dense layer with weights [sum of part rows, cols]. All parts have `dtype`; all or
  // none have a bias.
  virtual Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) = 0;

  // --- dense ----------------------------------------------------------------------------------
  // Computes y[rows, out] = act(p(x[rows, in]) W^T + b), plus `residual`[rows, out] if not null.
  // `residual` may be y itself; x may not alias y. The prologue p gives the separate operation's
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
  // Converts u8 pixels [images, side, side, 3] to float patches [images, (side/patch)^2,
  // 3*patch*patch]. A patch is channel-major, as a convolution's weight. A value is ((p/255) -
  // mean[c]) / std[c], each operation in float32 in this order.
  virtual void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                        const float mean[3], const float std[3], float* out) = 0;
  // Computes full (not causal) attention: qkv [images, tokens, 3, heads, dim] -> out [images,
  // tokens, heads, dim], scale 1/sqrt(dim).
  virtual void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads,
                            int64_t dim, float* out) = 0;

  // --- attention over the paged cache ---------------------------------------------------------
  // Returns whether MoveTokens can write the format and PagedAttention can read it. Always true for
  // RAW16.
  virtual bool Supports(Format format) const = 0;
  // Applies RoPE and stores K and V. qkv is [rows, heads + 2 kv_heads, head_dim] and is changed in
  // place. q and k are rotated by positions[row] (rotate-half: pairs (i, i+d/2)). If transform[row]
  // is not 0, q, k and v are then multiplied by H (below), which leaves q k^T unchanged. k and v
  // are stored at slots[row] as RAW16, unless the page is kNoPage. A null `transform` means none.
  // H is the Walsh-Hadamard matrix in Sylvester's order over sqrt(head_dim): symmetric and its own
  // inverse. It needs a power of two as head_dim. In float32: sums and differences of elements 1
  // apart, then 2, 4, ..., head_dim / 2, then a product with the rounded 1 / sqrt(head_dim).
  virtual void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                            const uint8_t* transform, int64_t rows, int64_t heads,
                            const RopeTable& rope, const KvLayerView& kv) = 0;
  // Computes out[rows, heads, head_dim] = softmax(q k^T / sqrt(head_dim)) v. Sequence s has the
  // rows query_begin[s] .. query_begin[s+1] and attends over its runs, which may have any formats
  // in any order. A run's LogitMap is applied to its logits before softmax.
  // Causality needs no positions: n > 1 query rows are themselves the last n stored tokens, in
  // order, of the last run, which is RAW16. Row j of n sees every token except the last n - 1 - j.
  //
  // q is the first `heads` of qkv's rows, with row stride (heads + 2 kv_heads) * head_dim. heads is
  // a multiple of kv_heads (GQA). If transformed[sequence] is not 0, the stored K and V were
  // multiplied by H; every head of out is then multiplied by H too, which undoes it. A null
  // `transformed` means none.
  virtual void PagedAttention(const float* qkv, const int32_t* query_begin,
                              const uint8_t* transformed, int64_t num_sequences, int64_t heads,
                              const KvLayerView& kv, float* out) = 0;
  // Lets a backend plan these calls at once and choose kernels (FlashInfer's plan and run). It is
  // optional: PagedAttention gives the same result without a plan. query_begin, runs and run_begin
  // must be in device memory already and must not change until the calls. The next plan replaces
  // calls that have not been made.
  virtual void PlanAttention(const AttentionMetadata&) {}
  // Returns how often, since the start, a LogitMap's slope was clamped to 0: rows times heads.
  virtual int64_t clamped_slopes() const = 0;
  // Copies n tokens, K and V of all KV heads, from RAW16 pages into slots of pages of format `to`,
  // quantized by `rule` (quantize.h). RAW16 to RAW16 copies bytes. Pages of all layers may mix.
  // A token's codes depend on the token alone, with two exceptions. If FillsWholePages(to), they
  // depend on the page's tokens, and moves come in groups that fill one page's slots 0, 1, 2, ...
  // If HasHeader(to), neighbouring moves with one header are a whole segment, whose ranges are
  // written to the header.
  // REQUIRES: Supports(to); no page is both source and destination of one call; each slot is
  // written once.
  virtual void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                          const QuantRule& rule, const TokenMove* moves, int64_t n) = 0;
};

}  // namespace tessera
