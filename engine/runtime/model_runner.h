// Runs the model for the engine: encodes images, builds a step's input batch, queues the forward
// pass, and moves tokens between pages.
//
// Ownership: owns the model, the memory behind the arena, the encoder cache and the statistics'
// buffers. Threads: the engine's thread; model() is immutable where it is const.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/digest.h"
#include "engine/model/llava.h"
#include "engine/request/observer.h"
#include "engine/runtime/engine_options.h"
#include "engine/runtime/in_flight_step.h"
#include "engine/runtime/live_requests.h"
#include "engine/statistics/statistic.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

class ModelRunner {
 public:
  // Allocates `kv_bytes` of device memory for the arena. `observer` and `requests` outlive this.
  ModelRunner(std::unique_ptr<LlavaModel> model, int64_t kv_bytes, int64_t image_cache_bytes,
              Observer* observer, const LiveRequests* requests);

  // Runs the largest steps once, so that no request waits for the first allocation (warm_up.h).
  void WarmUp(const EngineOptions& options, int context_tokens);

  // Brings the features of every image that the step touches: from the encoder cache, or through
  // the image tower.
  void EncodeImages(InFlightStep* step);
  // Builds the input of the step. `step` must stay where it is until its outputs are processed.
  void BuildBatch(InFlightStep* step);
  // Queues the forward pass. With an asynchronous backend it returns while the device works.
  void Forward(const InFlightStep& step) { model_->Forward(step.batch, arena_memory_.get()); }
  // Waits for the outputs of the oldest queued step and hands its statistics to the sequences.
  LlavaModel::Output Finish(const InFlightStep& step);

  // Queues moves of tokens between pages behind everything queued so far.
  void MoveTokens(const std::vector<MoveBatch>& batches) {
    model_->MoveTokens(arena_memory_.get(), batches);
  }

  // Queues the low-pass measurement of a sequence's prompt. Returns false, and queues nothing, if
  // FinishLowPass must be called first.
  bool BeginLowPass(Sequence* sequence);
  // Waits for the measurements queued since the last call, in order.
  std::vector<LowPassStats> FinishLowPass() { return model_->FinishLowPass(); }

  LlavaModel& model() const { return *model_; }
  const FeatureCache& encoder_cache() const { return features_; }
  void ClearEncoderCache() { features_.Clear(); }

 private:
  struct WantedImage;
  std::vector<WantedImage> WantedImages(const SchedulerOutput& scheduled);
  void AddItem(const SchedulerOutput::Item& item, InFlightStep* step);
  void AddSample(RequestState& request, Batch* batch);
  void AddImageRows(RequestState& request, const SchedulerOutput::Item& item, int row,
                    Batch* batch);
  bool AddStatistics(const SchedulerOutput::Item& item, int first_row, Batch* batch);

  std::unique_ptr<LlavaModel> model_;
  Observer* observer_;
  const LiveRequests* requests_;
  StatisticShape shape_;
  Buffer arena_memory_;
  int64_t arena_bytes_;
  FeatureCache features_;
  // Two sets take turns, as two steps are in flight. Each holds one object a statistic.
  std::vector<std::unique_ptr<StepStatistic>> statistics_[2];
  int64_t built_ = 0;  // steps
};

}  // namespace tessera
