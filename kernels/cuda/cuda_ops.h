// The CUDA backend: ops.h on one GPU and one stream. This header is free of CUDA types, so callers
// need no toolkit. A build without CUDA only returns the reason why it has none (device_none.cc).
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"

namespace tessera {

// Either `ops`, or the reason why this host has none.
struct MadeCudaOps {
  std::unique_ptr<Ops> ops;
  std::string problem;
};

// Uses the first device (CUDA_VISIBLE_DEVICES chooses it) if this binary has code for it and
// cublasLt can be opened. `precise`: see BackendOptions. Activations are float32. Answers may
// depend on the batch, but only through roundings.
MadeCudaOps MakeCudaOps(bool precise);

// Returns the cudaStream_t of Ops made by MakeCudaOps, for benchmarks that time on it.
void* CudaStream(Ops& ops);

}  // namespace tessera
