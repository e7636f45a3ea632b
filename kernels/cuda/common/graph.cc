#include "kernels/cuda/common/graph.h"

namespace tessera::cuda {
namespace {

// The limit of cached executables. Parts of different steps have a few dozen different node counts.
constexpr size_t kMostExecutables = 64;

}  // namespace

void Graphs::Begin() {
  // Relaxed mode, because workspaces may allocate during the capture.
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
    cudaGetLastError();  // clears the error, or the next launch would report it
    // Destroying an executable does not stop a launch of it that still runs.
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
