#include "kernels/cuda/common/graph.h"

namespace tessera::cuda {
namespace {

// Steps of different kinds, and parts of them, have a few dozen counts of nodes.
constexpr size_t kMostExecutables = 64;

}  // namespace

void Graphs::Begin() {
  // Relaxed: workspaces may grow meanwhile.
  TESSERA_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
}

void Graphs::End() {
  cudaGraph_t graph = nullptr;
  TESSERA_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
  size_t nodes = 0;
  TESSERA_CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
  if (nodes > 0) TESSERA_CUDA_CHECK(cudaGraphLaunch(Executable(graph, nodes), stream_));
  TESSERA_CUDA_CHECK(cudaGraphDestroy(graph));
}

cudaGraphExec_t Graphs::Executable(cudaGraph_t graph, size_t nodes) {
  if (by_nodes_.size() >= kMostExecutables && !by_nodes_.contains(nodes)) Clear();
  cudaGraphExec_t& executable = by_nodes_[nodes];
  if (executable != nullptr) {
    cudaGraphExecUpdateResultInfo info;
    const cudaError_t error = cudaGraphExecUpdate(executable, graph, &info);
    if (error == cudaSuccess) return executable;
    if (error != cudaErrorGraphExecUpdateFailure) TESSERA_CUDA_CHECK(error);
    cudaGetLastError();  // it is told, and must not show at the next launch
    // What still runs of it is not stopped.
    TESSERA_CUDA_CHECK(cudaGraphExecDestroy(executable));
  }
  TESSERA_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  return executable;
}

void Graphs::Clear() {
  for (const auto& [nodes, executable] : by_nodes_) {
    TESSERA_CUDA_CHECK(cudaGraphExecDestroy(executable));
  }
  by_nodes_.clear();
}

}  // namespace tessera::cuda
