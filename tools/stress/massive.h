// Plants massive activations in a checkpoint that has none. AKVQ's pivots exist to handle them.
//
// In trained LLaVA models a few tokens have residual entries thousands of times the median (Sun et
// al., arXiv 2402.17762). Their keys differ from all others, and coarse rounding of those keys
// ruins every answer. Here the first token, BOS, gets such an entry without a change of the
// function. That works because BOS attends only to itself: its keys and values are the same in
// every prompt, so one channel can carry them.
//   - The residual stream gets new channels that no layer writes. RMSNorm's mean then covers more
//     entries, so its weights and epsilon are scaled to give the old values.
//   - BOS's embedding is `activation` in the first new channel and 0 elsewhere. The columns of W_k
//   and
//     W_v for this channel give BOS its old keys and values.
//   - In each KV head the RoPE pair with the least weight in attention is removed from W_q. Queries
//     then have no component along it, so a large component of BOS's key changes no logit. From the
//     third layer on BOS gets such a component, which 2-bit codes cannot cover. Only this step
//     changes the function, by the pair's former contribution.
// The plan is computed from a forward pass of BOS alone, in float64. Threads: functions only, safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"
#include "kernels/tensor.h"

namespace tessera {

struct MassivePlan {
  struct Layer {
    std::vector<float> key, value;  // [kv_heads * head_dim]: column `channel()` of W_k and W_v
    std::vector<int> unused_pair;   // [kv_heads]: i of the RoPE pair (i, i + head_dim / 2)
  };
  int old_hidden = 0;  // hidden size of the text model
  int hidden = 0;      // hidden size with the new channels
  int bos = 0;         // token id
  float activation = 0;
  float rms_eps = 0;
  std::vector<Layer> layers;

  int channel() const { return old_hidden; }
};

// Computes the plan. INVALID_ARGUMENT for a model without BOS, or the error of `weights`.
absl::StatusOr<MassivePlan> PlanMassive(const ModelConfig& config, TensorSource& weights);

// Returns the new shape of the tensor with this canonical name.
std::vector<int64_t> MassiveShape(const MassivePlan& plan, absl::string_view name,
                                  std::vector<int64_t> shape);
// Converts its values from [shape] to [MassiveShape].
std::vector<float> MassiveValues(const MassivePlan& plan, const ModelConfig& config,
                                 absl::string_view name, const std::vector<int64_t>& shape,
                                 std::vector<float> values);

}  // namespace tessera
