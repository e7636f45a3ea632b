// The CUDA backend of a build without CUDA: every call returns the reason.
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/cuda_ops.h"

namespace tessera {
namespace {

constexpr char kProblem[] = "this binary was built without CUDA";

}  // namespace

CudaDevices FindCudaDevices() { return {{}, kProblem}; }

MadeCudaOps MakeCudaOps(bool) { return {nullptr, kProblem}; }

}  // namespace tessera
