// The CUDA backend: ops.h on one GPU and one stream. Free of CUDA types, so that callers need no
// toolkit; in a build without CUDA only the reason why not remains (device_none.cc).
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"

namespace tessera {

// Either `ops` or the reason why this host has none.
struct MadeCudaOps {
  std::unique_ptr<Ops> ops;
  std::string problem;
};

// Uses the first device (CUDA_VISIBLE_DEVICES chooses it) if this binary has code for it and
// cublasLt can be opened. `precise`: see BackendOptions. Activations are float32; answers may
// depend on the batch, by roundings only.
MadeCudaOps MakeCudaOps(bool precise);

// The cudaStream_t of Ops made by MakeCudaOps: for benchmarks, which time on it.
void* CudaStream(Ops& ops);

}  // namespace tessera
