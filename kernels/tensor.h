// Views of tensors in host memory, and the interface through which models ask for their weights.
//
// TensorSource hides the container (safetensors, dummy weights), so that vision/ and engine/ load
// weights without knowing files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/base.h"

namespace tessera {

// A row-major tensor in host memory, not owned. `data` may be misaligned for its dtype
// (safetensors promises no alignment): read elements with memcpy.
struct HostTensor {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t bytes() const { return elements() * DTypeBytes(dtype); }
};

// Finds weights by their canonical name. Canonical is the newer llava-hf layout without the leading
// "model.": `language_model.layers.0.self_attn.q_proj.weight`,
// `language_model.embed_tokens.weight`, `language_model.norm.weight`, `lm_head.weight`,
// `vision_tower.vision_model.*`, `multi_modal_projector.linear_1.weight`. An implementation maps
// other layouts to it.
// Threads: one thread. Lifetime: returned views live as long as the source.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Returns the tensor. NOT_FOUND and INVALID_ARGUMENT name file, tensor, wanted and found shape.
  virtual absl::StatusOr<HostTensor> Find(absl::string_view name,
                                          const std::vector<int64_t>& shape) = 0;
  virtual bool Has(absl::string_view name) const = 0;
};

// Returns element `i` as float, for any dtype and alignment. For small tensors and tests.
float ElementAsFloat(const HostTensor& tensor, int64_t i);
std::vector<float> ToFloats(const HostTensor& tensor);

}  // namespace tessera
