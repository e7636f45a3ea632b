#include "kernels/cuda/gemm/gemm.h"

#include <string>

#include "base/end_process.h"

namespace tessera {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr size_t kMaxPlans = 4096;  // prefill chunks may have any number of rows
constexpr uint32_t kAlignment = 16;

constexpr cudaDataType_t CudaType(DType t) {
  return t == DType::kF32 ? CUDA_R_32F : t == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

}  // namespace

#define TESSERA_LT_CHECK(call) Check(call, __LINE__, shape)

size_t Gemm::Hash::operator()(const GemmShape& s) const {
  uint64_t h = 0;
  for (int64_t v : {s.m, s.n, s.k, static_cast<int64_t>(s.in), static_cast<int64_t>(s.out),
                    static_cast<int64_t>(s.accumulate), static_cast<int64_t>(s.bias),
                    static_cast<int64_t>(s.plain_b)}) {
    h = (h ^ static_cast<uint64_t>(v)) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
  }
  return h;
}

Gemm::Gemm(const CublasLt* lt, cudaStream_t stream) : lt_(lt), stream_(stream), workspace_(stream) {
  const GemmShape shape{};
  TESSERA_LT_CHECK(lt_->Create(&handle_));
}

Gemm::~Gemm() {
  DropPlans();
  const GemmShape shape{};
  TESSERA_LT_CHECK(lt_->Destroy(handle_));
}

void Gemm::Check(cublasStatus_t status, int line, const GemmShape& s) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  char shape[120];
  std::snprintf(shape, sizeof(shape), " (m %lld, n %lld, k %lld, %s to %s)",
                static_cast<long long>(s.m), static_cast<long long>(s.n),
                static_cast<long long>(s.k), DTypeName(s.in), DTypeName(s.out));
  EndProcess(std::string(__FILE__) + ":" + std::to_string(line) +
             ": cublasLt: " + lt_->GetStatusString(status) + shape);
}

void Gemm::DropPlans() {
  for (auto& [shape, plan] : plans_) {
    TESSERA_LT_CHECK(lt_->MatrixLayoutDestroy(plan.a));
    TESSERA_LT_CHECK(lt_->MatrixLayoutDestroy(plan.b));
    TESSERA_LT_CHECK(lt_->MatrixLayoutDestroy(plan.c));
    TESSERA_LT_CHECK(lt_->MatmulDescDestroy(plan.operation));
  }
  plans_.clear();
}

// cublasLt is column-major, so our row-major matrices are its transposes, and it computes c^T[n, m]
// = b[n, k] a^T[k, m]. A plain b is [n, k] to it as it lies in memory.
Gemm::Plan Gemm::MakePlan(const GemmShape& shape, const float* bias) {
  Plan plan;
  const cublasOperation_t order = shape.plain_b ? CUBLAS_OP_N : CUBLAS_OP_T;
  TESSERA_LT_CHECK(lt_->MatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  TESSERA_LT_CHECK(lt_->MatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &order,
                                               sizeof order));
  const cudaDataType_t in = CudaType(shape.in), out = CudaType(shape.out);
  TESSERA_LT_CHECK(shape.plain_b ? lt_->MatrixLayoutCreate(&plan.b, in, shape.n, shape.k, shape.n)
                                 : lt_->MatrixLayoutCreate(&plan.b, in, shape.k, shape.n, shape.k));
  TESSERA_LT_CHECK(lt_->MatrixLayoutCreate(&plan.a, in, shape.k, shape.m, shape.k));
  TESSERA_LT_CHECK(lt_->MatrixLayoutCreate(&plan.c, out, shape.n, shape.m, shape.n));

  if (shape.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t type = CUDA_R_32F;
    TESSERA_LT_CHECK(lt_->MatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                 &epilogue, sizeof epilogue));
    TESSERA_LT_CHECK(lt_->MatmulDescSetAttribute(
        plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
    SetBias(shape, plan, bias);
  }

  cublasLtMatmulPreference_t preference;
  TESSERA_LT_CHECK(lt_->MatmulPreferenceCreate(&preference));
  TESSERA_LT_CHECK(lt_->MatmulPreferenceSetAttribute(preference,
                                                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &kWorkspaceBytes, sizeof kWorkspaceBytes));
  for (cublasLtMatmulPreferenceAttributes_t which :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    TESSERA_LT_CHECK(
        lt_->MatmulPreferenceSetAttribute(preference, which, &kAlignment, sizeof kAlignment));
  }
  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  TESSERA_LT_CHECK(lt_->MatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, plan.a, plan.c,
                                               plan.c, preference, 1, &best, &found));
  if (found == 0) Check(CUBLAS_STATUS_NOT_SUPPORTED, __LINE__, shape);
  TESSERA_LT_CHECK(best.state);
  TESSERA_LT_CHECK(lt_->MatmulPreferenceDestroy(preference));
  plan.algorithm = best.algo;
  return plan;
}

void Gemm::SetBias(const GemmShape& shape, const Plan& plan, const float* bias) const {
  TESSERA_LT_CHECK(lt_->MatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                               &bias, sizeof bias));
}

void Gemm::Run(const GemmShape& shape, const void* a, const void* b, void* c, const float* bias,
               float scale) {
  TESSERA_CHECK((bias != nullptr) == shape.bias);
  auto it = plans_.find(shape);
  if (it == plans_.end()) {
    if (plans_.size() >= kMaxPlans) DropPlans();
    it = plans_.emplace(shape, MakePlan(shape, bias)).first;
  }
  const Plan& p = it->second;
  if (shape.bias) SetBias(shape, p, bias);
  const float beta = shape.accumulate ? 1 : 0;
  TESSERA_LT_CHECK(lt_->Matmul(handle_, p.operation, &scale, b, p.b, a, p.a, &beta, c, p.c, c, p.c,
                               &p.algorithm, workspace_.Get(kWorkspaceBytes), kWorkspaceBytes,
                               stream_));
}

}  // namespace tessera
