// LLaVA's multimodal projector: two dense layers with a GELU (erf form) between them, from the
// vision tower's width to the text model's.
//
// Source: Liu et al. 2023 (LLaVA-1.5). Ownership and threads: as ClipTower.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace tessera {

class Projector {
 public:
  // Loads `<prefix>.linear_1.{weight,bias}` and `<prefix>.linear_2.{weight,bias}`; biases are
  // optional.
  static absl::StatusOr<Projector> Load(int64_t vision_hidden, int64_t text_hidden,
                                        Activation activation, TensorSource& source, Ops& ops,
                                        const std::string& prefix);
  // Computes out [rows, text_hidden] from x [rows, vision_hidden]; both are device float32.
  void Forward(const float* x, int64_t rows, float* out);

 private:
  Ops* ops_ = nullptr;
  Linear linear_1_, linear_2_;
  Activation activation_ = Activation::kGelu;
  Buffer hidden_;
  int64_t hidden_rows_ = 0;
};

}  // namespace tessera
