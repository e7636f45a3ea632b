// A model that forwards every call to another one. Tests override what they observe or change.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "engine/model/llava.h"

namespace tessera::testing {

class WrappedModel : public LlavaModel {
 public:
  explicit WrappedModel(std::unique_ptr<LlavaModel> model) : model_(std::move(model)) {}

  std::vector<std::shared_ptr<const ImageFeatures>> EncodeImages(
      const std::vector<const PreparedImage*>& images) override {
    return model_->EncodeImages(images);
  }
  void Ban(const std::vector<int32_t>& ids) override { model_->Ban(ids); }
  void Forward(const Batch& batch, uint8_t* arena) override { model_->Forward(batch, arena); }
  Output Finish() override { return model_->Finish(); }
  bool BeginLowPass(const uint8_t* arena, const std::vector<PageId>& pages,
                    const PromptView& prompt,
                    const std::vector<LowPassSegment>& segments) override {
    return model_->BeginLowPass(arena, pages, prompt, segments);
  }
  std::vector<LowPassStats> FinishLowPass() override { return model_->FinishLowPass(); }
  void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) override {
    model_->MoveTokens(arena, batches);
  }
  Ops& ops() override { return model_->ops(); }
  const ModelConfig& config() const override { return model_->config(); }
  int64_t parameters() const override { return model_->parameters(); }
  int max_rows() const override { return model_->max_rows(); }

 private:
  std::unique_ptr<LlavaModel> model_;
};

}  // namespace tessera::testing
