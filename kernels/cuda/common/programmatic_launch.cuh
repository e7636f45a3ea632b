// Launching a kernel whose blocks come up while the kernel before it in the stream still runs
// (programmatic dependent launch, Hopper and later; elsewhere an ordinary launch).
#pragma once

#include <nv/target>

#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// In a kernel launched by LaunchDependent: before this nothing may be read that the kernel in
// front writes, and nothing written that it or earlier ones use. What earlier ones have written is
// there if the kernel in front was launched the ordinary way, or let this one come up after its own
// wait. Every thread must call it, so that the next kernel's wait covers earlier kernels too.
__device__ inline void SynchronizeGridDependency() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" ::: "memory");))
}

// In any kernel: the next one may come up as soon as all blocks have called this or ended.
__device__ inline void TriggerDependentLaunch() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.launch_dependents;");))
}

template <class Args>
void LaunchDependent(void (*kernel)(Args), int blocks, int threads, int shared_bytes,
                     cudaStream_t stream, const Args& args) {
  int device = 0, major = 0;
  TESSERA_CUDA_CHECK(cudaGetDevice(&device));
  TESSERA_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = major >= 9 ? 1 : 0;
  TESSERA_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, args));
}

}  // namespace tessera::cuda
