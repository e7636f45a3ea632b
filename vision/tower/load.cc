#include "vision/tower/load.h"

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
                                  const std::vector<std::string>& prefixes,
                                  const std::vector<int64_t>& weight_shape, BiasRule rule) {
  TESSERA_CHECK(!prefixes.empty() && weight_shape.size() >= 2);
  const int64_t rows = weight_shape[0];
  int64_t cols = 1;
  for (size_t i = 1; i < weight_shape.size(); ++i) cols *= weight_shape[i];
  bool biased = rule == BiasRule::kRequired;
  for (const std::string& prefix : prefixes) {
    biased |= rule == BiasRule::kOptional && source.Has(prefix + ".bias");
  }

  std::vector<HostTensor> weights, biases;
  for (const std::string& prefix : prefixes) {
    ASSIGN_OR_RETURN(weights.emplace_back(), source.Find(prefix + ".weight", weight_shape));
    if (biased) {
      ASSIGN_OR_RETURN(biases.emplace_back(), source.Find(prefix + ".bias", {rows}));
    }
  }
  const DType dtype = weights[0].dtype;
  bool mixed = false;
  for (const HostTensor& t : weights) mixed |= t.dtype != dtype;
  for (const HostTensor& t : biases) mixed |= t.dtype != dtype;

  std::deque<std::vector<float>> converted;  // a deque: its elements stay where they are
  const auto data = [&](const HostTensor& t) -> const void* {
    if (!mixed) return t.data;
    return converted.emplace_back(ToFloats(t)).data();
  };
  std::vector<LinearPart> parts;
  for (size_t i = 0; i < weights.size(); ++i) {
    parts.push_back({data(weights[i]), biased ? data(biases[i]) : nullptr, rows});
  }
  return ops.MakeLinear(parts, cols, mixed ? DType::kF32 : dtype);
}

}  // namespace tessera
