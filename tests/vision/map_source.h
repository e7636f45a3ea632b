// A TensorSource over tensors that the test makes. Their data is misaligned on purpose, as in
// safetensors.
#pragma once

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/half.h"
#include "kernels/tensor.h"

namespace tessera {

class MapSource : public TensorSource {
 public:
  explicit MapSource(uint32_t seed) : random_(seed) {}

  // Adds a tensor of normally distributed values around `center`, rounded to `dtype`.
  void Add(const std::string& name, const std::vector<int64_t>& shape, float sigma, DType dtype,
           float center = 0.0f) {
    Entry& e = entries_[name];
    e.shape = shape;
    e.dtype = dtype;
    int64_t elements = 1;
    for (int64_t d : shape) elements *= d;
    std::normal_distribution<float> normal(center, sigma);
    e.bytes.resize(1 + elements * DTypeBytes(dtype));
    for (int64_t i = 0; i < elements; ++i) {
      const float value = normal(random_);
      const uint16_t half = dtype == DType::kF16 ? FloatToHalf(value) : FloatToBFloat16(value);
      const void* from = dtype == DType::kF32 ? static_cast<const void*>(&value) : &half;
      std::memcpy(&e.bytes[1 + i * DTypeBytes(dtype)], from, DTypeBytes(dtype));
    }
  }

  void Remove(const std::string& name) { entries_.erase(name); }

  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    const auto it = entries_.find(std::string(name));
    if (it == entries_.end()) return absl::NotFoundError(absl::StrCat("no tensor ", name));
    if (it->second.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("shape of tensor ", name));
    }
    return HostTensor{&it->second.bytes[1], it->second.dtype, shape};
  }
  bool Has(absl::string_view name) const override { return entries_.count(std::string(name)) > 0; }

  // Returns the values of a tensor. REQUIRES: it exists.
  std::vector<double> Values(const std::string& name) {
    const Entry& e = entries_.at(name);
    const std::vector<float> floats = ToFloats({&e.bytes[1], e.dtype, e.shape});
    return {floats.begin(), floats.end()};
  }

 private:
  struct Entry {
    std::vector<int64_t> shape;
    DType dtype;
    std::vector<uint8_t> bytes;
  };
  std::mt19937 random_;
  std::map<std::string, Entry> entries_;
};

}  // namespace tessera
