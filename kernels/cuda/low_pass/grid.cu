// The steps of the residuals through a grid (grid.cuh).
#include <algorithm>
#include <utility>

#include "kernels/cuda/low_pass/grid.cuh"

namespace tessera::cuda {
namespace {

constexpr int64_t kGridBytes = int64_t{512} << 20;  // per group of layers

}  // namespace

void LowPass::OnGrid(const LowPassJob& job, float* out) {
  const Grid grid(job.tokens, job.kept);
  const int layers = job.geometry.layers, channels = job.channels();
  const int parts = InterpolatedParts(job);
  const int64_t half = grid.half(), rows = grid.rows(), layer_columns = 2 * int64_t{channels};
  const auto fitting = static_cast<int>(
      std::clamp<int64_t>(kGridBytes / ((half + rows) * 2 * layer_columns * 2), 1, layers));
  const int most = CeilDiv(layers, CeilDiv(layers, fitting));  // layers per group

  struct Memory {
    GridWeights weights;
    float *means, *partial;
    __half *folded, *filtered;
  };
  const auto lay_out = [&](WorkspaceLayout from) {
    Memory m{GridWeights(grid, from)};
    m.means = from.Take<float>(layers * layer_columns);
    m.partial = from.Take<float>(int64_t{layers} * 2 * parts * job.tokens * 2);
    m.folded = from.Take<__half>(2 * half * most * layer_columns);
    m.filtered = from.Take<__half>(2 * rows * most * layer_columns);
    return std::pair(m, from.bytes());
  };
  const Memory m =
      lay_out(WorkspaceLayout(workspace_.Get(lay_out(WorkspaceLayout(nullptr)).second))).first;

  m.weights.Compute(grid, stream_);
  ChannelMeans(job, m.means, stream_);
  int64_t filled = -1;  // first row of the computed filter
  for (int layer = 0; layer < layers; layer += most) {
    const int count = std::min(most, layers - layer);
    const int64_t columns = count * layer_columns;
    SpreadTokens(job, grid, m.weights, m.means, layer, count, m.folded, stream_);
    for (int64_t row = 0; row < rows; row += m.weights.filter_rows) {
      if (row != filled) m.weights.ComputeFilter(grid, static_cast<int>(row), stream_);
      filled = row;
      const int64_t some = std::min<int64_t>(m.weights.filter_rows, rows - row);
      GemmShape shape{some, columns, half, DType::kF16, DType::kF16};
      shape.plain_b = true;
      for (int parity : {0, 1}) {
        gemm_->Run(shape, m.weights.filter + parity * m.weights.filter_rows * half,
                   m.folded + parity * half * columns,
                   m.filtered + (parity * rows + row) * columns);
      }
    }
    InterpolateDistances(job, grid, m.weights.interpolate, m.filtered, m.means, layer, count,
                         m.partial, stream_);
  }
  SumParts(job, m.partial, parts, out, stream_);
}

}  // namespace tessera::cuda
