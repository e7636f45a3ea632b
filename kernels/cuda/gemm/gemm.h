// Matrix products by cublasLt: one plan per shape, chosen by its heuristic and kept.
#pragma once

#include <unordered_map>

#include "kernels/cuda/common/workspace.h"
#include "kernels/cuda/gemm/cublas_lt.h"

namespace tessera {

// c[m, n] = scale a[m, k] b[n, k]^T (+ c if `accumulate`, + bias[n] if `bias`), row-major and
// dense; with `plain_b` b is [k, n]. a and b of `in`, c of `out`, bias and sums in float32 (float32
// operands are not rounded to tf32).
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

// Threads: one. All pointers are 16-byte aligned device memory; k * size and n * size of the rows
// must be multiples of 16 bytes.
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
