// The loop behind Engine: its inbox, its live requests and its step. Private to engine/.
//
// State is grouped by who may touch it: the inbox under its mutex (any thread), atomics (any
// thread), everything else by the loop's thread alone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/base.h"
#include "base/clock.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/request_state.h"
#include "engine/runtime/scheduler.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

class Engine::Loop : private TokenMover {
 public:
  Loop(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
       const EngineOptions& options, Observer* observer);
  ~Loop() override;

  // --- any thread
  absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                      int* queue_position);
  bool Abort(const std::string& request_id);
  void FlushCaches();
  void BeginDrain();
  bool DrainUntil(absl::Time deadline);
  void Stop();
  EngineLoad Load() const;
  absl::Duration HeartbeatAge() const;

  const LlavaModel& model() const { return *model_; }
  const EngineOptions& options() const { return options_; }
  int context_tokens() const { return rules_.context_tokens; }

 private:
  struct Incoming {
    Request request;
    std::shared_ptr<OutputQueue> output_queue;
    absl::Time submitted;
  };
  // A step that the model was asked for and whose answers are not here yet.
  struct Flight {
    StepPlan plan;
    Batch batch;
    bool follows = false;               // planned when the step before was under way or just done
    std::vector<Sequence*> measured;    // held until its answers are here
    std::vector<Sequence*> low_pass;    // held until their residuals are here
    size_t begun = 0;                   // of low_pass: on their way
    std::vector<Generation*> pictured;  // one for each picture, with repetitions
    int pictures = 0;                   // that ran through the image tower
    std::vector<std::unique_ptr<Generation>> ended;  // plans of flights still name them
  };
  struct Delivery {
    Generation* to;
    Event event;
    absl::Time sampled;
  };

  // --- the loop's thread
  void Main();
  bool TakeInbox();                  // false: time to end
  void Sweep(absl::Time now);        // ends cancelled, expired and stalled requests
  bool Step();                       // false: nothing to run
  void Settle(StepReport* report);   // waits for the oldest flight's answers: it is gone
  void Await(const Flight& flight);  // lets the next step run its tokens before they are known
  void EncodeImages(Flight* flight);
  Batch MakeBatch(const StepPlan& plan);  // `plan` must outlive it
  static void FillLayer(const StepPlan& plan, int layer, Batch::Layer* out);
  // What policies asked for of the step's prompt tokens, after the forward.
  void AskForStatistics(const StepPlan::Item& item, Batch* batch);  // of MakeBatch's last item
  void FillColumns(const StepPlan& plan, Batch* batch);
  void CollectStatistics(const Flight& flight, const LlavaModel::Answers& answers);
  void BeginLowPass(Flight* flight, StepReport* report);  // of whole prompts, before their commits
  void SettleLowPass(Flight* flight, StepReport* report);
  // The flight's tokens are stored, or will be before what the device is given from now on. What
  // policies make of that follows at once, but for sequences that are measured.
  void Complete(Flight* flight, StepReport* report);
  void Compress(const std::vector<Sequence*>& sequences, StepReport* report);
  void Release(const std::vector<Sequence*>& held, StepReport* report);  // measured: Compress
  void Emit(const Flight& flight, LlavaModel::Answers answers);
  void Move(const std::vector<MoveBatch>& batches) override;
  // Tells the readers: a few microseconds each, so that it waits until the device works again.
  void Deliver();
  void Finish(Generation& generation, Event event, absl::Time now);
  Generation& Of(const Sequence* sequence) { return *by_sequence_.at(sequence); }
  bool Live(const Sequence* sequence) const { return by_sequence_.contains(sequence); }
  Digest FeatureKey(const Request& request, const PreparedImage& image) const;
  void PublishLoad();
  void CheckIntegrity();

  // Constant after construction.
  std::unique_ptr<LlavaModel> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EngineOptions options_;
  Observer* observer_;
  Observer silent_;
  GenerationRules rules_;
  bool run_ahead_;

  // Loop's thread only.
  Buffer arena_memory_;
  Arena arena_;
  PrefixCache prefix_;
  FeatureCache features_;
  Scheduler scheduler_;
  std::map<int64_t, std::unique_ptr<Generation>> live_;  // by arrival
  std::unordered_map<const Sequence*, Generation*> by_sequence_;
  int64_t arrivals_ = 0;
  std::deque<Flight> flights_;        // oldest first; one between steps, if any, and two within
  std::vector<Delivery> deliveries_;  // of the last step; those that end are told at once
  absl::Duration move_time_;          // of this step's moves
  int64_t held_slopes_ = 0;           // as last reported
  bool stepping_ = false;             // the loop's last turn planned a step

  // Any thread.
  mutable Mutex mutex_;
  std::condition_variable_any wake_, idle_;
  std::vector<Incoming> inbox_ TESSERA_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::shared_ptr<OutputQueue>> ids_ TESSERA_GUARDED_BY(mutex_);
  bool flush_ TESSERA_GUARDED_BY(mutex_) = false;
  bool draining_ TESSERA_GUARDED_BY(mutex_) = false;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  EngineLoad load_ TESSERA_GUARDED_BY(mutex_);
  std::atomic<int64_t> heartbeat_nanos_{0};
  std::thread thread_;
};

}  // namespace tessera
