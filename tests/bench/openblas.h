// OpenBLAS as a baseline, opened at run time: without it the benchmark runs and says so.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace tessera::bench {

// All matrices are row-major float32: y[rows, out] = x[rows, in] w[out, in]^T.
class OpenBlas {
 public:
  // Opens the library. `core` is OPENBLAS_CORETYPE ("Haswell": without AVX-512), or "" for its own
  // choice; it holds for the whole process. UNAVAILABLE with the reason if the library is missing.
  static absl::StatusOr<OpenBlas> Open(const std::string& core, int threads);
  std::string core() const { return core_(); }  // the core in use
  void MatMul(const float* w, int64_t in, int64_t out, const float* x, int64_t rows,
              float* y) const;
  // Computes one row with sgemv.
  void MatVec(const float* w, int64_t in, int64_t out, const float* x, float* y) const;

 private:
  void (*sgemm_)(int, int, int, int, int, int, float, const float*, int, const float*, int, float,
                 float*, int) = nullptr;
  void (*sgemv_)(int, int, int, int, float, const float*, int, const float*, int, float, float*,
                 int) = nullptr;
  char* (*core_)() = nullptr;
};

}  // namespace tessera::bench
