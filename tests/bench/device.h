// A CUDA device for the benchmarks: the backend, the clock of its own stream, and its roofline.
//
// This header has no CUDA types. Without CUDA, Open returns the reason (device_none.cc).
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "tests/bench/bench.h"

namespace tessera::bench {

class Device {
 public:
  virtual ~Device() = default;
  // Opens the device. FAILED_PRECONDITION with the reason if there is none. `precise`: see
  // BackendOptions.
  static absl::StatusOr<std::unique_ptr<Device>> Open(bool precise);

  virtual Ops& ops() = 0;
  virtual std::string name() const = 0;
  // The same as bench::MedianSeconds, measured between two events of the stream; --clock has no
  // effect.
  virtual std::vector<double> MedianSeconds(
      const Flags& flags, const std::vector<std::function<void(int64_t round)>>& candidates) = 0;
  // Fills device memory with uniform values in [-1, 1).
  virtual void Fill(void* to, DType dtype, int64_t n, uint32_t seed) = 0;
  // Reads a whole buffer: the roofline of memory-bound kernels.
  virtual void Read(const void* from, int64_t bytes) = 0;
  // Computes c[m, n] = a[m, k] b[n, k]^T in bfloat16 with cublasLt alone: the roofline of dense
  // layers.
  virtual void Product(int64_t m, int64_t n, int64_t k, const void* a, const void* b, void* c) = 0;
};

// At least four times any L2 cache: inputs rotate through this much memory.
constexpr int64_t kRotatedBytes = int64_t{256} << 20;

// The commands `gemm` and `attention` with --device=cuda.
absl::Status RunDeviceGemm(const Flags& flags, Report& report);
absl::Status RunDeviceAttention(const Flags& flags, Report& report);

}  // namespace tessera::bench
