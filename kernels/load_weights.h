// Loads weights from a TensorSource into a backend's memory: for the models of vision/ and engine/.
//
// Threads: one thread, as Ops and TensorSource. Errors: those of TensorSource::Find.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace tessera {

// Returns tensor `name` of that shape as float32 in device memory.
absl::StatusOr<Buffer> LoadFloats(TensorSource& source, Ops& ops, const std::string& name,
                                  const std::vector<int64_t>& shape);

// Whether a dense layer has biases. kOptional: all blocks have one, or none has.
enum class BiasRule { kNone, kRequired, kOptional };

// One block of a dense layer: `<name>.weight` [outputs, inputs] and `<name>.bias` [outputs].
struct LinearBlock {
  std::string name;
  int64_t outputs;
};

// Returns one dense layer with the blocks concatenated along its outputs. `inputs` has more than
// one dimension for a convolution; they are flattened. The weights keep their dtype if all weights
// and biases agree, else the layer becomes float32, which holds every value exactly.
absl::StatusOr<Linear> LoadLinear(TensorSource& source, Ops& ops,
                                  const std::vector<LinearBlock>& blocks,
                                  const std::vector<int64_t>& inputs, BiasRule bias);

}  // namespace tessera
