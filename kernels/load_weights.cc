#include "kernels/load_weights.h"

#include <deque>

#include "base/base.h"

namespace tessera {

absl::StatusOr<Buffer> LoadFloats(TensorSource& source, Ops& ops, const std::string& name,
                                  const std::vector<int64_t>& shape) {
  ASSIGN_OR_RETURN(const HostTensor tensor, source.Find(name, shape));
  const std::vector<float> values = ToFloats(tensor);
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
  Buffer buffer = ops.Allocate(bytes);
  ops.CopyToDevice(buffer.get(), values.data(), bytes);
  return buffer;
}

absl::StatusOr<Linear> LoadLinear(TensorSource& source, Ops& ops,
                                  const std::vector<LinearBlock>& blocks,
                                  const std::vector<int64_t>& inputs, BiasRule bias) {
  TESSERA_CHECK(!blocks.empty() && !inputs.empty());
  int64_t cols = 1;
  for (const int64_t n : inputs) cols *= n;
  bool biased = bias == BiasRule::kRequired;
  for (const LinearBlock& block : blocks) {
    biased |= bias == BiasRule::kOptional && source.Has(block.name + ".bias");
  }

  std::vector<HostTensor> weights, biases;
  for (const LinearBlock& block : blocks) {
    std::vector<int64_t> shape = {block.outputs};
    shape.insert(shape.end(), inputs.begin(), inputs.end());
    ASSIGN_OR_RETURN(weights.emplace_back(), source.Find(block.name + ".weight", shape));
    if (!biased) continue;
    ASSIGN_OR_RETURN(biases.emplace_back(), source.Find(block.name + ".bias", {block.outputs}));
  }
  const DType dtype = weights[0].dtype;
  bool mixed = false;
  for (const HostTensor& t : weights) mixed |= t.dtype != dtype;
  for (const HostTensor& t : biases) mixed |= t.dtype != dtype;

  std::deque<std::vector<float>> converted;  // a deque, because its elements never move
  const auto data = [&](const HostTensor& t) -> const void* {
    if (!mixed) return t.data;
    return converted.emplace_back(ToFloats(t)).data();
  };
  std::vector<LinearPart> parts;
  for (size_t i = 0; i < weights.size(); ++i) {
    parts.push_back({data(weights[i]), biased ? data(biases[i]) : nullptr, blocks[i].outputs});
  }
  return ops.MakeLinear(parts, cols, mixed ? DType::kF32 : dtype);
}

}  // namespace tessera
