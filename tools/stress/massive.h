// Plants massive activations in a checkpoint: what AKVQ's pivots exist for, in a model that has
// none.
//
// In trained LLaVA models a few tokens carry entries of the residual stream thousands of times the
// median (Sun et al., arXiv 2402.17762); their keys are unlike all others, and rounding those keys
// coarsely ruins every answer. Here the first token, BOS, gets such an entry, in a way that leaves
// the function of the model as it was, because BOS sees only itself: its keys and values are the
// same in every prompt, so a channel of their own can carry them.
//   - The residual stream is widened by channels that nothing else writes. RMSNorm's mean is then
//     over more entries: its weights and epsilon are scaled to give the old values.
//   - BOS's embedding is `activation` in the first new channel and 0 elsewhere; the columns of W_k
//     and W_v that read this channel give BOS the keys and values that it had.
//   - In each KV head the RoPE pair that weighs least in attention is taken out of W_q. Along it no
//     query has a component, so a large one of BOS's key changes no logit; from the third layer on
//     BOS gets one, and with it a range that 2-bit codes cannot cover. This is the one step that
//     changes the function, by what that pair contributed.
// The plan is computed from one forward of BOS alone, in float64. Threads: functions only, safe.
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
  int old_hidden = 0;  // of the text model
  int hidden = 0;
  int bos = 0;
  float activation = 0;
  float rms_eps = 0;
  std::vector<Layer> layers;

  int channel() const { return old_hidden; }
};

// INVALID_ARGUMENT for a model without BOS; else what `weights` says.
absl::StatusOr<MassivePlan> PlanMassive(const ModelConfig& config, TensorSource& weights);

// The shape that the tensor of this canonical name takes.
std::vector<int64_t> MassiveShape(const MassivePlan& plan, absl::string_view name,
                                  std::vector<int64_t> shape);
// Its values [shape] -> [MassiveShape].
std::vector<float> MassiveValues(const MassivePlan& plan, const ModelConfig& config,
                                 absl::string_view name, const std::vector<int64_t>& shape,
                                 std::vector<float> values);

}  // namespace tessera
