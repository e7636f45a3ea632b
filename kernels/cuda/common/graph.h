// Implements Ops::BeginGraph and EndGraph: captures what the stream is given between them as a CUDA
// graph.
//
// A graph is captured again each time, so nothing has to stay in place from one step to the next:
// arrays, batch, context, kernels and even dependencies may differ. Capturing costs the host less
// than launching. Among cached executable graphs, the one with the same number of nodes takes the
// new parameters (cudaGraphExecUpdate); only if the graph's shape differs is it instantiated again.
#pragma once

#include <cstddef>
#include <map>

#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// Ownership: owns its graphs. Threads: one thread. Errors: CHECK.
class Graphs {
 public:
  explicit Graphs(cudaStream_t stream) : stream_(stream) {}
  ~Graphs() { Clear(); }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  void Begin();
  void End();  // launches what was captured since Begin

 private:
  // Returns an executable for `graph` with its parameters.
  cudaGraphExec_t Executable(cudaGraph_t graph, size_t nodes);
  void Clear();

  cudaStream_t stream_;
  std::map<size_t, cudaGraphExec_t> by_nodes_;
};

}  // namespace tessera::cuda
