#include "kernels/cuda/gemm/cublas_lt.h"

#include <dlfcn.h>

namespace tessera {
namespace {

struct Opened {
  CublasLt functions = {};
  std::string problem;
};

template <class F>
void Find(void* library, const char* name, F* f, std::string* problem) {
  *f = reinterpret_cast<F>(dlsym(library, name));
  if (*f == nullptr) *problem = std::string("cublasLt lacks ") + name;
}

Opened Open() {
  Opened o;
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    o.problem = "cannot open " + name + ": " + (error != nullptr ? error : "no reason given");
    return o;
  }
  CublasLt& f = o.functions;
  Find(library, "cublasLtCreate", &f.Create, &o.problem);
  Find(library, "cublasLtDestroy", &f.Destroy, &o.problem);
  Find(library, "cublasLtGetVersion", &f.GetVersion, &o.problem);
  Find(library, "cublasLtGetStatusString", &f.GetStatusString, &o.problem);
  Find(library, "cublasLtMatmul", &f.Matmul, &o.problem);
  Find(library, "cublasLtMatmulDescCreate", &f.MatmulDescCreate, &o.problem);
  Find(library, "cublasLtMatmulDescDestroy", &f.MatmulDescDestroy, &o.problem);
  Find(library, "cublasLtMatmulDescSetAttribute", &f.MatmulDescSetAttribute, &o.problem);
  Find(library, "cublasLtMatrixLayoutCreate", &f.MatrixLayoutCreate, &o.problem);
  Find(library, "cublasLtMatrixLayoutDestroy", &f.MatrixLayoutDestroy, &o.problem);
  Find(library, "cublasLtMatmulPreferenceCreate", &f.MatmulPreferenceCreate, &o.problem);
  Find(library, "cublasLtMatmulPreferenceDestroy", &f.MatmulPreferenceDestroy, &o.problem);
  Find(library, "cublasLtMatmulPreferenceSetAttribute", &f.MatmulPreferenceSetAttribute,
       &o.problem);
  Find(library, "cublasLtMatmulAlgoGetHeuristic", &f.MatmulAlgoGetHeuristic, &o.problem);
  return o;
}

}  // namespace

const CublasLt* OpenCublasLt(std::string* problem) {
  static const Opened* const opened = new Opened(Open());
  if (opened->problem.empty()) return &opened->functions;
  *problem = opened->problem;
  return nullptr;
}

}  // namespace tessera
