// Attention on the device: RoPE and storing of new tokens, attention over the paged cache, and full
// attention for the vision tower. Threads: one thread. Errors: CHECK.
#pragma once

#include <map>
#include <vector>

#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/common/workspace.h"
#include "kernels/ops.h"

namespace tessera::cuda {

void RopeAndStore(cudaStream_t stream, float* qkv, const int32_t* positions, const KvSlot* slots,
                  const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                  const KvLayerView& kv);

// Computes Ops::VitAttention in float32. REQUIRES: dim is a multiple of 8 and at most 256.
void VitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                  int64_t heads, int64_t dim, float* out);

// The same on tensor cores, for the dims that HasTensorVitAttention names. q, k, v and the
// softmax's weights are rounded to half.
bool HasTensorVitAttention(int64_t dim);
void TensorVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                        int64_t heads, int64_t dim, float* out);
// The same with wgmma. Returns false and does nothing if the device or this build has no wgmma, or
// if a head's K and V do not fit into shared memory (beyond 896 tokens).
bool WarpgroupVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                           int64_t heads, int64_t dim, float* out);

// Attention over pages of any formats (Ops::PagedAttention).
//
// Only the device knows how many rows and tokens a sequence has, so a small kernel plans first. It
// divides sequences with one query row (decode) into chunks of about equal cost, enough to fill the
// device (split KV, flash-decoding). It divides other sequences (prefill, and questions after a
// compressed context) into blocks of query rows. Persistent kernels then take these work items one
// by one. The last chunk of a sequence to finish merges the partial results.
// If `precise`, or if the head dim is neither 64 nor 128, both kernels are float32 throughout, on
// CUDA cores. Otherwise they round what tensor cores multiply to half (paged_work.cuh).
class PagedAttention {
 public:
  struct Kernels {
    int queries, prefill_queries;
    void (*decode)(PagedArgs);
    void (*prefill)(PagedArgs);  // null: no sequence has more than one row
    int prefill_threads = 128, prefill_shared_bytes = 0;
    bool reads_map = false;  // whether prefill reads args.raw16_map
  };

  PagedAttention(cudaStream_t stream, bool precise);
  // The same as Ops::PlanAttention. One launch plans all layers. The chosen kernels leave out
  // prefill and rare formats if no sequence needs them.
  void PlanAhead(const AttentionMetadata& metadata);
  // The same as Ops::PagedAttention; head_dim is at most 256. A call without a plan first reads the
  // number of rows back, the only wait for the device here.
  void Run(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
           int64_t num_sequences, int64_t heads, const KvLayerView& kv, float* out);
  int64_t clamped_slopes() const { return static_cast<int64_t>(*clamped_slopes_); }

  ~PagedAttention();
  PagedAttention(const PagedAttention&) = delete;
  PagedAttention& operator=(const PagedAttention&) = delete;

 private:
  struct Planned {
    const KvRun* runs;  // null: already used
    const int32_t* run_begin;
    PagedPlan plan;
  };
  Kernels Choose(const KvGeometry& geometry, int64_t heads, int64_t num_sequences, uint32_t formats,
                 int64_t most_rows);
  // Returns how many of the kernel's blocks the device holds at a time.
  int GridOf(void (*kernel)(PagedArgs), int threads, int shared_bytes);
  // Returns the arguments except the plan and those that only the call knows.
  PagedArgs MakeArgs(const Kernels& kernels, const int32_t* query_begin, int64_t num_sequences,
                     int64_t heads, const KvLayerView& kv);
  int64_t RowsOf(const int32_t* query_begin, int64_t num_sequences);
  // Launches the planning of n layers into `memory`.
  void Plan(PagedArgs args, const KvLayerView* layers, int64_t n, Workspace& memory,
            std::vector<PagedPlan>* plans);
  bool TakePlanned(const KvLayerView& kv, PagedPlan* plan);

  cudaStream_t stream_;
  bool precise_;
  int multiprocessors_ = 0;
  std::map<void (*)(PagedArgs), int> grids_;
  std::vector<Planned> planned_layers_;
  Kernels planned_kernels_ = {};
  int64_t planned_rows_ = 0;  // query rows if runs may have maps; else 0
  bool planned_ = false;      // a kernel has been launched since the planning
  Workspace plan_, layer_plans_, partial_, maps_;
  unsigned long long* device_clamped_slopes_ = nullptr;  // counter on the device
  volatile unsigned long long* clamped_slopes_ =
      nullptr;  // pinned copy, as of the last finished calls
};

}  // namespace tessera::cuda
