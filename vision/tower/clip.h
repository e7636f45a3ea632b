// The CLIP vision transformer of LLaVA, up to the feature layer, without the class token.
//
// Source: Radford et al. 2021 (CLIP), as transformers' CLIPVisionModel computes it: patch
// convolution without bias, class and position embeddings, pre-LayerNorm, then pre-norm blocks with
// quick-GELU (or the config's activation). LLaVA reads hidden state `feature_layer`. Its -2 is the
// output of the last block but one, so the last block and the post-norm never run.
//
// Ownership: the object owns its weights, which live in the backend's memory. Threads: one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace tessera {

struct ClipConfig {  // defaults: transformers' CLIPVisionConfig
  int hidden = 768;
  int intermediate = 3072;
  int layers = 12;
  int heads = 12;
  int image_size = 224;
  int patch = 32;
  float eps = 1e-5f;
  Activation activation = Activation::kQuickGelu;
  int feature_layer = -2;        // vision_feature_layer
  bool drop_class_token = true;  // vision_feature_select_strategy: "default"; "full" keeps it

  int patches() const { return (image_size / patch) * (image_size / patch); }
  int tokens() const { return patches() + 1; }                              // with the class token
  int features() const { return drop_class_token ? patches() : tokens(); }  // output rows per image
  // Returns how many blocks must run for `feature_layer` (negative counts from the end, as in
  // Python).
  int blocks() const { return feature_layer < 0 ? layers + 1 + feature_layer : feature_layer; }
};

class ClipTower {
 public:
  // Loads `<prefix>.embeddings.*`, `<prefix>.encoder.layers.N.*` and `<prefix>.pre_layrnorm.*`.
  static absl::StatusOr<std::unique_ptr<ClipTower>> Load(const ClipConfig& config,
                                                         TensorSource& source, Ops& ops,
                                                         const std::string& prefix);
  virtual ~ClipTower() = default;
  // Computes the features of `images` images. pixels: device u8 [images, image_size, image_size,
  // 3]. out: device float32 [images, features(), hidden]. Keeps its activation buffers, which grow
  // to the largest `images` seen.
  virtual void Forward(const uint8_t* pixels, int64_t images, const float mean[3],
                       const float std[3], float* out) = 0;
};

}  // namespace tessera
