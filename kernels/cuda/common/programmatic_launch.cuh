// Programmatic dependent launch (PDL; Hopper and later, elsewhere an ordinary launch): a kernel's
// blocks start while the previous kernel of the stream still runs.
#pragma once

#include <nv/target>

#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// Waits for the earlier kernels (cudaGridDependencySynchronize; griddepcontrol.wait). Before it, a
// kernel launched by LaunchDependent may not read what the previous kernel writes, nor write what
// that or earlier kernels use. It may read what still earlier kernels wrote if the previous kernel
// was launched the ordinary way, or triggered this launch after its own wait. Every thread must
// call it, so that the next kernel's wait covers earlier kernels too.
__device__ inline void SynchronizeGridDependency() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" ::: "memory");))
}

// Lets the next kernel start as soon as all blocks have called this or ended
// (cudaTriggerProgrammaticLaunchCompletion; griddepcontrol.launch_dependents). Any kernel may call
// it.
__device__ inline void TriggerDependentLaunch() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.launch_dependents;");))
}

// Launches `kernel` so that it may start at the previous kernel's trigger.
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
