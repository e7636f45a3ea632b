#include <algorithm>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/graph.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise/rows.h"
#include "kernels/cuda/gemm/dense.h"
#include "kernels/cuda/kv/move_tokens.h"
#include "kernels/cuda/kv/rank_tokens.h"
#include "kernels/cuda/kv/statistics.h"
#include "kernels/cuda/low_pass/low_pass.h"
#include "kernels/cuda/sampling/logits.h"
#include "kernels/cuda/sampling/sampling.h"

namespace tessera {
namespace {

// Owns the stream, its events and its memory pool. It is a base class, so that it outlives the
// members that use it.
struct Stream {
  Stream() {
    TESSERA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    TESSERA_CUDA_CHECK(cudaGetDevice(&properties.location.id));
    TESSERA_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
    uint64_t keep = UINT64_MAX;
    TESSERA_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
    for (cudaEvent_t& event : events) {
      TESSERA_CUDA_CHECK(cudaEventCreate(&event));
    }
  }
  ~Stream() {
    TESSERA_CUDA_CHECK(cudaStreamSynchronize(stream));
    for (const cudaEvent_t event : events) TESSERA_CUDA_CHECK(cudaEventDestroy(event));
    TESSERA_CUDA_CHECK(cudaMemPoolDestroy(pool));
    TESSERA_CUDA_CHECK(cudaStreamDestroy(stream));
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t stream = nullptr;
  cudaMemPool_t pool = nullptr;
  cudaEvent_t events[Ops::kEvents] = {};
};

// Buffers up to this size come from the pool. An image's features are allocated and freed with
// every request, and cudaFree would wait for the device.
constexpr int64_t kMostPooledBytes = int64_t{64} << 20;

class CudaOps final : private Stream, public Ops {
 public:
  CudaOps(const CublasLt* lt, bool precise)
      : precise_(precise),
        graphs_(stream),
        dense_(lt, stream, precise),
        attention_(stream, precise),
        low_pass_(&dense_.gemm(), stream, precise),
        ranker_(stream) {}

  const char* name() const override { return "cuda"; }
  cudaStream_t cuda_stream() const { return stream; }

  int64_t FreeBytes() const override {
    size_t free = 0, all = 0;
    TESSERA_CUDA_CHECK(cudaMemGetInfo(&free, &all));
    return static_cast<int64_t>(free);
  }
  Buffer Allocate(int64_t bytes) override {
    TESSERA_CHECK(bytes >= 0);
    if (bytes == 0) bytes = 1;  // an empty buffer still has an address
    void* p = nullptr;
    if (bytes <= kMostPooledBytes) {
      TESSERA_CUDA_CHECK(cudaMallocFromPoolAsync(&p, bytes, pool, stream));
      TESSERA_CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, stream));
      return Buffer(static_cast<uint8_t*>(p), [stream = stream](uint8_t* q) {
        TESSERA_CUDA_CHECK(cudaFreeAsync(q, stream));
      });
    }
    TESSERA_CUDA_CHECK(cudaMalloc(&p, bytes));
    TESSERA_CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, stream));
    return Buffer(static_cast<uint8_t*>(p), [](uint8_t* q) { TESSERA_CUDA_CHECK(cudaFree(q)); });
  }

  // From pageable memory this returns once the bytes have left `src`. On the device the copy takes
  // its place in the stream.
  void CopyToDevice(void* dst, const void* src, int64_t bytes) override {
    TESSERA_CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream));
  }
  void CopyToHost(void* dst, const void* src, int64_t bytes) override {
    TESSERA_CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream));
    TESSERA_CUDA_CHECK(cudaStreamSynchronize(stream));
  }
  Buffer AllocateStaging(int64_t bytes) override {
    void* p = nullptr;
    TESSERA_CUDA_CHECK(cudaMallocHost(&p, std::max<int64_t>(bytes, 1)));
    return Buffer(static_cast<uint8_t*>(p),
                  [](uint8_t* q) { TESSERA_CUDA_CHECK(cudaFreeHost(q)); });
  }
  void BeginCopyToHost(void* dst, const void* src, int64_t bytes) override {
    TESSERA_CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream));
  }
  bool asynchronous() const override { return true; }
  void RecordEvent(int event) override {
    TESSERA_CUDA_CHECK(cudaEventRecord(events[event], stream));
  }
  void WaitEvent(int event) override { TESSERA_CUDA_CHECK(cudaEventSynchronize(events[event])); }
  double SecondsBetween(int from, int to) const override {
    float milliseconds = 0;
    TESSERA_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events[from], events[to]));
    return double{milliseconds} * 1e-3;
  }
  void BeginGraph() override { graphs_.Begin(); }
  void EndGraph() override { graphs_.End(); }
  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) override {
    return dense_.MakeLinear(parts, cols, dtype, *this);
  }

  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue) override {
    dense_.MatMul(w, x, rows, y, act, residual, prologue);
  }

  void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
             float* out) override {
    cuda::Embed(stream, table, dtype, ids, rows, cols, out);
  }
  void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                   float* out) override {
    cuda::ScatterRows(stream, in, to_row, rows, cols, out);
  }
  void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                  float* out) override {
    cuda::GatherRows(stream, in, from_row, rows, cols, out);
  }
  void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
               float* y) override {
    cuda::RmsNorm(stream, x, w, rows, cols, eps, y);
  }
  void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                 float eps, float* y) override {
    cuda::LayerNorm(stream, x, w, b, rows, cols, eps, y);
  }
  void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) override {
    cuda::SwiGlu(stream, x, rows, cols, y);
  }

  void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                  const LogitBias* biases, const TokenCount* counts,
                  const int32_t* sampled) override {
    cuda::EditLogits(stream, logits, cols, edits, n, biases, counts, sampled);
  }
  void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                    const SampleRule* rules, int32_t* ids) override {
    cuda::SampleTokens(stream, logits, rows, cols, banned, rules, ids);
  }
  void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) override {
    cuda::TakeSampled(stream, sampled, ids, rows);
  }
  void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n, int64_t width,
                const int32_t* ids, LogprobAt* out) override {
    cuda::Logprobs(stream, logits, cols, jobs, n, width, ids, out);
  }

  void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                const float mean[3], const float std[3], float* out) override {
    cuda::Patchify(stream, pixels, images, side, patch, mean, std, out);
  }
  void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
                    float* out) override {
    if (!precise_ && cuda::HasTensorVitAttention(dim)) {
      cuda::TensorVitAttention(stream, qkv, images, tokens, heads, dim, out);
    } else {
      cuda::VitAttention(stream, qkv, images, tokens, heads, dim, out);
    }
  }

  bool Supports(Format) const override { return true; }
  void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                    const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                    const KvLayerView& kv) override {
    cuda::RopeAndStore(stream, qkv, positions, slots, transform, rows, heads, rope, kv);
  }
  void PagedAttention(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                      int64_t num_sequences, int64_t heads, const KvLayerView& kv,
                      float* out) override {
    attention_.Run(qkv, query_begin, transformed, num_sequences, heads, kv, out);
  }
  void PlanAttention(const AttentionMetadata& metadata) override { attention_.PlanAhead(metadata); }
  int64_t clamped_slopes() const override { return attention_.clamped_slopes(); }
  void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                  const TokenMove* moves, int64_t n) override {
    cuda::MoveTokens(stream, arena, geometry, to, rule, moves, n);
  }

  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians) override {
    cuda::RowPeaks(stream, x, from_row, rows, cols, top, peaks, medians);
  }
  void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) override {
    low_pass_.Residuals(arena, geometry, pages, layer_pages, segment, out_tokens, out);
  }
  void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
                  int32_t* ranks, double* sums) override {
    ranker_.Run(residuals, vision, layers, tokens, ranks, sums);
  }
  void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                        int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                        float* columns) override {
    cuda::AttentionColumns(stream, qkv, query_begin, jobs, num_jobs, heads, kv, columns);
  }

 private:
  const bool precise_;
  cuda::Graphs graphs_;
  CudaDense dense_;
  cuda::PagedAttention attention_;
  cuda::LowPass low_pass_;
  cuda::TokenRanker ranker_;
};

__global__ void ProbeKernel() {}

// Returns "" if this binary has machine code, or PTX that the driver accepts, for the device; else
// the reason.
std::string ProbeDevice() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) return "no CUDA device";
  cudaFuncAttributes attributes;
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, ProbeKernel);
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // clears the error, or the next launch would report it
  return cudaGetErrorString(error);
}

}  // namespace

MadeCudaOps MakeCudaOps(bool precise) {
  MadeCudaOps made;
  made.problem = ProbeDevice();
  if (!made.problem.empty()) return made;
  const CublasLt* lt = OpenCublasLt(&made.problem);
  if (lt != nullptr) made.ops = std::make_unique<CudaOps>(lt, precise);
  return made;
}

void* CudaStream(Ops& ops) {
  auto* mine = dynamic_cast<CudaOps*>(&ops);
  TESSERA_CHECK(mine != nullptr);
  return mine->cuda_stream();
}

}  // namespace tessera
