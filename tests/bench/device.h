// A CUDA device as the benchmarks see it: the backend, the clock of its own stream, and ceilings.
//
// No CUDA types here: without CUDA only Open remains and says why not (device_none.cc).
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "tests/bench/bench.h"

namespace tessera::bench {

class Device {
 public:
  virtual ~Device() = default;
  // FAILED_PRECONDITION with the reason where there is none. `precise`: see BackendOptions.
  static absl::StatusOr<std::unique_ptr<Device>> Open(bool precise);

  virtual Ops& ops() = 0;
  virtual std::string name() const = 0;
  // As bench::MedianSeconds, between two events of the stream; --clock does not matter.
  virtual std::vector<double> MedianSeconds(
      const Flags& flags, const std::vector<std::function<void(int64_t round)>>& candidates) = 0;
  // Uniform values in [-1, 1) in device memory.
  virtual void Fill(void* to, DType dtype, int64_t n, uint32_t seed) = 0;
  // Reads all of a buffer: the ceiling of what waits for memory.
  virtual void Read(const void* from, int64_t bytes) = 0;
  // c[m, n] = a[m, k] b[n, k]^T in bfloat16 by cublasLt alone: the ceiling of dense layers.
  virtual void Product(int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c) = 0;
};

// At least four times any L2 cache: operands are rotated through this much memory.
constexpr int64_t kRotatedBytes = int64_t{256} << 20;

// `gemm` and `attention` with --device=cuda.
absl::Status RunDeviceGemm(const Flags& flags, Report& report);
absl::Status RunDeviceAttention(const Flags& flags, Report& report);

}  // namespace tessera::bench
