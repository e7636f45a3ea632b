#include "tests/bench/openblas.h"

#include <dlfcn.h>

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tessera::bench {
namespace {

constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;  // of the CBLAS interface

template <class F>
bool Find(void* library, const char* name, F** f) {
  *f = reinterpret_cast<F*>(dlsym(library, name));
  return *f != nullptr;
}

}  // namespace

absl::StatusOr<OpenBlas> OpenBlas::Open(const std::string& core, int threads) {
  if (!core.empty()) setenv("OPENBLAS_CORETYPE", core.c_str(), 1);
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);  // stays open
  if (!library) return absl::UnavailableError(absl::StrCat("no OpenBLAS: ", dlerror()));
  OpenBlas blas;
  void (*set_threads)(int) = nullptr;
  if (!Find(library, "cblas_sgemm", &blas.sgemm_) || !Find(library, "cblas_sgemv", &blas.sgemv_) ||
      !Find(library, "openblas_get_corename", &blas.core_) ||
      !Find(library, "openblas_set_num_threads", &set_threads)) {
    return absl::UnavailableError("libopenblas.so.0 lacks the functions of OpenBLAS");
  }
  set_threads(threads);
  return blas;
}

void OpenBlas::MatMul(const float* w, int64_t in, int64_t out, const float* x, int64_t rows,
                      float* y) const {
  const int n = static_cast<int>(out), k = static_cast<int>(in);
  sgemm_(kRowMajor, kNoTranspose, kTranspose, static_cast<int>(rows), n, k, 1, x, k, w, k, 0, y, n);
}

void OpenBlas::MatVec(const float* w, int64_t in, int64_t out, const float* x, float* y) const {
  const int n = static_cast<int>(out), k = static_cast<int>(in);
  sgemv_(kRowMajor, kNoTranspose, n, k, 1, w, k, x, 1, 0, y, 1);
}

}  // namespace tessera::bench
