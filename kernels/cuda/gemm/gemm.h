// Matrix products by cublasLt. Each shape's plan is chosen by cublasLt's heuristic and kept.
#pragma once

#include <unordered_map>

#include "kernels/cuda/common/workspace.h"
#include "kernels/cuda/gemm/cublas_lt.h"

namespace tessera {

// The product c[m, n] = scale a[m, k] b[n, k]^T (+ c if `accumulate`, + bias[n] if `bias`),
// row-major and dense. With `plain_b`, b is [k, n]. a and b have type `in`, c has type `out`; bias
// and sums are float32. float32 inputs are not rounded to tf32.
struct GemmShape {
  int64_t m, n, k;
  DType in = DType::kBF16;
  DType out = DType::kF32;
  bool accumulate = false;
  bool bias = false;
  bool plain_b = false;

  bool operator==(const GemmShape& o) const {
    return m == o.m && n == o.n && k == o.k && in == o.in && out == o.out &&
           accumulate == o.accumulate && bias == o.bias && plain_b == o.plain_b;
  }
};

// Threads: one thread. Errors: CHECK. All pointers are 16-byte aligned device memory; rows of k and
// of n elements must be multiples of 16 bytes.
class Gemm {
 public:
  Gemm(const CublasLt* lt, cudaStream_t stream);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  void Run(const GemmShape& shape, const void* a, const void* b, void* c,
           const float* bias = nullptr, float scale = 1);

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
  };
  struct Hash {
    size_t operator()(const GemmShape& s) const;
  };
  Plan MakePlan(const GemmShape& shape, const float* bias);
  void SetBias(const GemmShape& shape, const Plan& plan, const float* bias) const;
  void DropPlans();
  void Check(cublasStatus_t status, int line, const GemmShape& shape) const;

  const CublasLt* lt_;
  cudaStream_t stream_;
  cublasLtHandle_t handle_ = nullptr;
  Workspace workspace_;
  std::unordered_map<GemmShape, Plan, Hash> plans_;
};

}  // namespace tessera
