// Attention on the device: rotation and storing of new tokens, attention over the paged cache, and
// the image tower's full attention.
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

// dim: a multiple of 8, at most 256.
void VitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                  int64_t heads, int64_t dim, float* out);

// The same on tensor cores: q, k, v and the softmax's weights are rounded to half. For few dims.
bool HasTensorVitAttention(int64_t dim);
void TensorVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                        int64_t heads, int64_t dim, float* out);
// The same by warpgroups. False, and nothing done, where the device, or what was built for it, has
// none, or where a head's K and V do not fit into its shared memory: beyond 896 tokens.
bool WarpgroupVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                           int64_t heads, int64_t dim, float* out);

// Attention over pages of any formats. How many rows and tokens a sequence has is known on the
// device only, so a small kernel plans first: it cuts the sequences with one query row (decode)
// into chunks of about equal cost, enough of them to fill the device, and the others (prefill, and
// questions behind a compressed context) into blocks of query rows. Kernels with a fixed grid then
// take these units one by one; the last chunk of a sequence to end joins the chunks' results.
// If `precise`, or if the head dim is neither 64 nor 128, both are float32 throughout, on CUDA
// cores. Else they round to half what tensor cores multiply (paged_work.cuh).
class PagedAttention {
 public:
  struct Kernels {
    int queries, prefill_queries;
    void (*decode)(PagedArgs);
    void (*prefill)(PagedArgs);  // null: no sequence has more than one row
    int prefill_threads = 128, prefill_shared_bytes = 0;
    bool reads_map = false;  // prefill does, args.raw16_map
  };

  PagedAttention(cudaStream_t stream, bool precise);
  // As Ops::PlanAttention: one launch plans all layers, and what only prefill or rare formats
  // need is left out of the kernel where nobody needs it.
  void PlanAhead(const AttentionMetadata& metadata);
  // As Ops::PagedAttention; head_dim at most 256. A call that was not planned reads the number of
  // rows back first: the one thing here that waits for the device.
  void Run(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
           int64_t num_sequences, int64_t heads, const KvLayerView& kv, float* out);
  int64_t clamped_slopes() const { return static_cast<int64_t>(*clamped_slopes_); }

  ~PagedAttention();
  PagedAttention(const PagedAttention&) = delete;
  PagedAttention& operator=(const PagedAttention&) = delete;

 private:
  struct Planned {
    const KvRun* runs;  // null: taken
    const int32_t* run_begin;
    PagedPlan plan;
  };
  Kernels Choose(const KvGeometry& geometry, int64_t heads, int64_t num_sequences, uint32_t formats,
                 int64_t most_rows);
  // Blocks of a kernel that the device holds at a time.
  int GridOf(void (*kernel)(PagedArgs), int threads, int shared_bytes);
  // All but the plan and what only the call knows.
  PagedArgs MakeArgs(const Kernels& kernels, const int32_t* query_begin, int64_t num_sequences,
                     int64_t heads, const KvLayerView& kv);
  int64_t RowsOf(const int32_t* query_begin, int64_t num_sequences);
  // Launches the planning of n layers, into `memory`.
  void Plan(PagedArgs args, const KvLayerView* layers, int64_t n, Workspace& memory,
            std::vector<PagedPlan>* plans);
  bool TakePlanned(const KvLayerView& kv, PagedPlan* plan);

  cudaStream_t stream_;
  bool precise_;
  int multiprocessors_ = 0;
  std::map<void (*)(PagedArgs), int> grids_;
  std::vector<Planned> planned_layers_;
  Kernels planned_kernels_ = {};
  int64_t planned_rows_ = 0;  // where runs may have maps; else 0
  bool planned_ = false;      // a kernel behind the planning has been launched
  Workspace plan_, layer_plans_, partial_, maps_;
  unsigned long long* device_clamped_slopes_ = nullptr;  // on the device, which counts
  volatile unsigned long long* clamped_slopes_ =
      nullptr;  // pinned: as of the last calls that ended
};

}  // namespace tessera::cuda
