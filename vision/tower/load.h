// From a TensorSource to a backend's memory. Private to vision/*.cc.
// Errors: what TensorSource::Find returns.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace tessera {

// The tensor as float32 in device memory.
absl::StatusOr<Buffer> LoadFloats(TensorSource& source, Ops& ops, const std::string& name,
                                  const std::vector<int64_t>& shape);

enum class BiasRule { kNone, kRequired, kOptional /* all parts have one, or none has */ };

// One dense layer, glued along its outputs from `<prefix>.weight` of every prefix, each of
// `weight_shape` = [outputs, inputs...] (a convolution's inputs are flattened). Weights keep their
// dtype if all parts and biases agree, else the layer becomes float32.
absl::StatusOr<Linear> LoadLinear(TensorSource& source, Ops& ops,
                                  const std::vector<std::string>& prefixes,
                                  const std::vector<int64_t>& weight_shape, BiasRule bias);

}  // namespace tessera
