// Weights of any model for benchmarks of kernels, where their values do not matter.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "kernels/tensor.h"
#include "tests/bench/bench.h"

namespace tessera::bench {

// Tensors of any shape, all views into one random block: generating 13 GB of numbers would take
// longer than the benchmark. Norms are ones.
class RepeatedWeights final : public TensorSource {
 public:
  // `most` is the number of elements of the largest tensor.
  explicit RepeatedWeights(int64_t most) : block_(most), ones_(1 << 16, 0x3f80) {
    FastRandom random(1);
    for (uint16_t& b : block_) b = static_cast<uint16_t>(random.Next() < 0 ? 0xbc9e : 0x3c9e);
    for (int64_t i = 0; i < most; i += 3) block_[i] ^= static_cast<uint16_t>(i * 37 & 0x7f);
  }
  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    const bool norm = absl::StrContains(name, "norm");
    TESSERA_CHECK(n <= static_cast<int64_t>(norm ? ones_.size() : block_.size()));
    return HostTensor{norm ? ones_.data() : block_.data(), DType::kBF16, shape};
  }
  bool Has(absl::string_view) const override { return true; }

 private:
  std::vector<uint16_t> block_, ones_;  // bfloat16: +-0.0193 and near, 1
};

}  // namespace tessera::bench
