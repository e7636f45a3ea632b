#include <algorithm>

#include "absl/status/status.h"
#include "kernels/backend/backend.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/common/roofline.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm/gemm.h"
#include "tests/bench/device.h"

namespace tessera::bench {
namespace {

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<Ops> ops, const CublasLt* lt)
      : ops_(std::move(ops)),
        stream_(static_cast<cudaStream_t>(CudaStream(*ops_))),
        gemm_(lt, stream_),
        sink_(ops_->Allocate(4)) {
    TESSERA_CUDA_CHECK(cudaEventCreate(&begin_));
    TESSERA_CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~CudaDevice() override {
    TESSERA_CUDA_CHECK(cudaEventDestroy(begin_));
    TESSERA_CUDA_CHECK(cudaEventDestroy(end_));
  }

  Ops& ops() override { return *ops_; }
  std::string name() const override { return FindCudaDevices().devices[0].name; }

  std::vector<double> MedianSeconds(
      const Flags& flags, const std::vector<std::function<void(int64_t)>>& candidates) override {
    std::vector<std::vector<double>> seconds(candidates.size());
    for (int64_t round = -1; round < flags.Number("rounds"); ++round) {
      for (size_t i = 0; i < candidates.size(); ++i) {
        TESSERA_CUDA_CHECK(cudaEventRecord(begin_, stream_));
        candidates[i](round);
        TESSERA_CUDA_CHECK(cudaEventRecord(end_, stream_));
        TESSERA_CUDA_CHECK(cudaEventSynchronize(end_));
        float ms = 0;
        TESSERA_CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
        if (round >= 0) seconds[i].push_back(ms * 1e-3);
      }
    }
    std::vector<double> medians;
    for (std::vector<double>& s : seconds) {
      std::nth_element(s.begin(), s.begin() + s.size() / 2, s.end());
      medians.push_back(s[s.size() / 2]);
    }
    return medians;
  }

  void Fill(void* to, DType dtype, int64_t n, uint32_t seed) override {
    cuda::FillUniform(stream_, to, dtype, n, seed);
  }
  void Read(const void* from, int64_t bytes) override {
    cuda::ReadAll(stream_, from, bytes, reinterpret_cast<uint32_t*>(sink_.get()));
  }
  void Product(int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c) override {
    gemm_.Run({m, n, k, DType::kBF16, DType::kBF16}, a, b, c);
  }

 private:
  std::unique_ptr<Ops> ops_;
  cudaStream_t stream_;
  Gemm gemm_;
  Buffer sink_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::Open(bool precise) {
  ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, MakeBackend("cuda", {.precise = precise}));
  std::string problem;
  const CublasLt* lt = OpenCublasLt(&problem);
  if (lt == nullptr) return absl::FailedPreconditionError(problem);
  return std::make_unique<CudaDevice>(std::move(ops), lt);
}

}  // namespace tessera::bench
