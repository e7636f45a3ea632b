// The engine's thread: receives requests, schedules steps, runs them, processes their outputs.
//
// The parts are Scheduler, KvCacheManager, Compressor, ModelRunner and OutputProcessor; this class
// puts them in order. With an asynchronous backend it is a double buffer: while the device runs one
// step, the next is scheduled and queued behind it, and the outputs of the one before are processed
// (asynchronous scheduling). Private to engine/.
// Threads: Run is the thread; model(), context_tokens() and kv_bytes() are constant and safe.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/request/observer.h"
#include "engine/runtime/compressor.h"
#include "engine/runtime/engine_options.h"
#include "engine/runtime/in_flight_step.h"
#include "engine/runtime/kv_cache_manager.h"
#include "engine/runtime/live_requests.h"
#include "engine/runtime/model_runner.h"
#include "engine/runtime/output_processor.h"
#include "engine/runtime/request_queue.h"
#include "engine/runtime/scheduler.h"

namespace tessera {

class EngineCore {
 public:
  // `observer` may be null; it and `queue` outlive this.
  EngineCore(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
             const EngineOptions& options, Observer* observer, RequestQueue* queue);

  // Works until the queue is stopped; then ends every request.
  void Run();

  LlavaModel& model() const { return runner_.model(); }
  int context_tokens() const { return rules_.context_tokens; }
  int64_t kv_bytes() const { return cache_.arena().total_bytes(); }

 private:
  // Takes new requests and ends those that were cancelled, are late or whose reader stalls. False:
  // the queue was stopped.
  bool Receive();
  void Admit(RequestQueue::Incoming incoming);
  void EndAbandoned();
  bool Step();  // false: there was nothing to do
  // Schedules a step and appends it to `steps_`. Null: nothing can run now.
  InFlightStep* ScheduleStep(StepReport* report);
  // Nothing can be scheduled: waits for the step in flight, if there is one.
  bool FinishPipeline(StepReport* report);
  void Forward(InFlightStep* step, StepReport* report);
  // Marks the step's tokens as stored and lets policies act on them, except on sequences whose
  // policy waits for a measurement: those are blocked.
  void Advance(InFlightStep* step, StepReport* report);
  // A step that needs this one's statistics must not be scheduled before they are here.
  bool MayRunAhead(const InFlightStep& step) const;
  // Waits for the outputs of the oldest step in flight, processes them and removes the step.
  void ProcessOldest(StepReport* report);
  void BeginLowPass(InFlightStep* step, StepReport* report);
  void FinishLowPass(InFlightStep* step, StepReport* report);
  void Unblock(const std::vector<Sequence*>& sequences, StepReport* report);
  void Compress(const std::vector<Sequence*>& sequences, StepReport* report);
  void End(RequestState& request, Event last, absl::Time now);
  void Report(StepReport* report);
  void PublishLoad();
  void CheckIntegrity();

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const EngineOptions options_;
  Observer silent_;
  Observer* const observer_;
  RequestQueue* const queue_;

  KvCacheManager cache_;
  LiveRequests requests_;
  ModelRunner runner_;
  const GenerationRules rules_;
  const bool asynchronous_;
  Scheduler scheduler_;
  Compressor compressor_;
  OutputProcessor outputs_;
  std::deque<InFlightStep> steps_;  // oldest first; at most one between steps, two within
  int64_t arrivals_ = 0;
  int64_t clamped_slopes_ = 0;  // as last reported
  bool stepped_ = false;        // the loop's last turn scheduled a step
};

}  // namespace tessera
