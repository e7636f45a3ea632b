// The model: vision tower, projector and Llama decoder of a LLaVA checkpoint on one backend.
//
// Source: Liu et al. 2023 (LLaVA-1.5); Touvron et al. 2023 (Llama). Image features replace the
// embeddings of image tokens; everything else is a Llama decoder.
// Ownership: owns weights and activations in the backend's memory, and the backend itself.
// Threads: one thread after Load (the engine's); config() is immutable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/policy/policy_stats.h"
#include "cache/policy/storage.h"
#include "engine/model/batch.h"
#include "engine/model/model_config.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

class LlavaModel {
 public:
  // `max_rows` bounds the rows of one Forward (activations are allocated once).
  static absl::StatusOr<std::unique_ptr<LlavaModel>> Load(const ModelConfig& config,
                                                          TensorSource& source,
                                                          std::unique_ptr<Ops> ops, int max_rows);
  virtual ~LlavaModel() = default;

  // Features of `images`, one [tokens_per_image, hidden] each, in device memory: there for whatever
  // is called later. At most one call before each Forward.
  virtual std::vector<std::shared_ptr<const ImageFeatures>> EncodeImages(
      const std::vector<const PreparedImage*>& images) = 0;

  // Ids that no sampled row gives, from now on.
  virtual void Ban(const std::vector<int32_t>& ids) = 0;
  // Runs the decoder over the batch; new K/V go into the arena. Forward may return while the device
  // still works; Finish waits for what the oldest Forward without one was asked. Between them
  // MoveTokens and BeginLowPass may be called, and one more Forward.
  virtual void Forward(const Batch& batch, uint8_t* arena) = 0;
  struct Output {               // host memory, valid until the next Forward
    const int32_t* tokens;      // [batch.sampled_rows.size()]
    const LogprobAt* logprobs;  // [batch.logprobs.size(), batch.logprob_places]
    const float* logits;        // [batch.logit_rows.size(), vocab]
    double vision_seconds;      // device time of EncodeImages before the Forward, or 0
    double gap_seconds;         // the device was idle so long before the Forward; 0 for the first
  };
  virtual Output Finish() = 0;

  // Begins Ops::LowPassResiduals of a prompt's segments, which follow one another from its first
  // token to its last, and RankTokens, behind the last Forward; pages [layers, layer_pages]. False,
  // and nothing is begun, where FinishLowPass must be called first.
  virtual bool BeginLowPass(const uint8_t* arena, const std::vector<PageId>& pages,
                            const PromptView& prompt,
                            const std::vector<LowPassSegment>& segments) = 0;
  // Waits for those begun since the last call: in order, all layers of each, on the host until the
  // next BeginLowPass.
  virtual std::vector<LowPassStats> FinishLowPass() = 0;

  // Brings tokens into other pages, as a policy's commit or window exit asks.
  virtual void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) = 0;

  virtual Ops& ops() = 0;
  virtual const ModelConfig& config() const = 0;
  virtual int64_t parameters() const = 0;
  virtual int max_rows() const = 0;
};

}  // namespace tessera
