// A model's layers as graphs (Ops::BeginGraph), of 1, 2, 6, 18, ... layers: an idle device has one
// to work on at once, and with each part enough until the next, at most twice all before, is
// recorded.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace tessera {

// Calls run(layer) for all layers in order, and before each part, outside of its graph,
// prepare(end) where its last layer is end - 1.
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
