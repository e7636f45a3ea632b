// Ops::BeginGraph and EndGraph: what the stream is given between them becomes a CUDA graph.
//
// It is recorded anew each time, so that nothing has to stay where it was from one step to the
// next: arrays, batch, context, kernels and even what comes after what may differ. Recording takes
// the host less than launching does; of the executable graphs that were made for as many nodes, one
// then takes the new parameters, and only where the graph's shape differs is it made again.
#pragma once

#include <cstddef>
#include <map>

#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// Ownership: owns its graphs. Threads: one. Errors: CHECK.
class Graphs {
 public:
  explicit Graphs(cudaStream_t stream) : stream_(stream) {}
  ~Graphs() { Clear(); }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  void Begin();
  void End();  // launches what was recorded since Begin

 private:
  // One for `graph`, with its parameters.
  cudaGraphExec_t Executable(cudaGraph_t graph, size_t nodes);
  void Clear();

  cudaStream_t stream_;
  std::map<size_t, cudaGraphExec_t> by_nodes_;
};

}  // namespace tessera::cuda
