// Runs a model's layers as graphs (Ops::BeginGraph) of 1, 2, 6, 18, ... layers.
//
// The first graph is small, so an idle device starts at once. Each later graph has at most twice as
// many layers as all before it, so the device stays busy until the host has recorded it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace tessera {

// Calls run(layer) for all layers in order. Before each graph, and outside it, calls prepare(end),
// where end - 1 is the graph's last layer.
template <class Prepare, class Run>
void RunInGraphs(Ops& ops, int64_t layers, const Prepare& prepare, const Run& run) {
  for (int64_t begin = 0; begin < layers;) {
    const int64_t end = std::min(std::max<int64_t>(3 * begin, 1), layers);
    prepare(end);
    ops.BeginGraph();
    for (int64_t layer = begin; layer < end; ++layer) run(layer);
    ops.EndGraph();
    begin = end;
  }
}

}  // namespace tessera
