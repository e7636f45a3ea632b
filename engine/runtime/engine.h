// The engine: one thread that owns the device, the model and the KV cache, and turns requests into
// token events.
//
// Requests come in by a queue (Submit) and leave by their OutputQueue. Each step the loop takes new
// requests, drops cancelled, expired and stalled ones, plans with the Scheduler, encodes images
// that the plan needs, runs the model once over prefill chunks and decodes together, samples,
// emits. Where the device works by itself, two steps are under way: while one runs, the next is
// planned and queued behind it. Ownership: the engine owns model, cache and scheduler; the
// OutputQueue is shared with the reader. Threads: Submit, Abort, Drain, Load, HeartbeatAge,
// FlushCaches are safe from any thread. Errors: a prompt that can never fit is refused by Submit,
// everything later arrives as an Event.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/model/llava.h"
#include "engine/request/observer.h"
#include "engine/request/output_queue.h"
#include "engine/request/request.h"
#include "engine/text/tokenizer.h"

namespace tessera {

struct EngineOptions {
  int64_t kv_cache_bytes = 0;  // arena size; > 0
  int64_t image_cache_bytes = 256 << 20;
  int max_batch_tokens = 512;  // rows of one step: prefill chunk + decodes
  int max_sequences = 64;      // running at once
  int max_queue = 256;         // waiting; more are refused
  int context_tokens = 0;      // 0: the model's
  bool prefix_cache = true;
  absl::Duration stall_timeout = absl::Seconds(30);
  // Whether a step may be planned and handed to the device while the one before it still runs; its
  // tokens then need not come to the host first. Unset: where the backend is asynchronous.
  std::optional<bool> run_ahead;
  // Before there are requests, the largest steps are run once (warm_up.h).
  bool warm_up = false;
  bool warm_up_low_pass = false;  // also what a policy with needs().low_pass asks for
  bool check_integrity = false;   // after every step; debug builds and tests
};

class Engine {
 public:
  // The engine owns the model and the cache (allocated here, in the model's device memory);
  // `observer` (may be null) must outlive the engine. Starts the thread.
  // REQUIRES: options checked (kv_cache_bytes > 0, max_sequences <= max_batch_tokens <=
  // model->max_rows()).
  Engine(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
         const EngineOptions& options, Observer* observer);
  ~Engine();  // Stop()

  // Takes the request or says why not: INVALID_ARGUMENT (prompt and max_tokens over the context or
  // over the arena), RESOURCE_EXHAUSTED (queue full), UNAVAILABLE (draining, stopped),
  // ALREADY_EXISTS (request id live). On success `*queue_position` is the number waiting ahead.
  absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                      int* queue_position);

  bool Abort(const std::string& request_id);  // false: no such live request
  void FlushCaches();                         // done before the next step
  void BeginDrain();                          // refuse new work; running work goes on
  // Waits until nothing is live, at most until `deadline`; then cancels what is left. True if all
  // finished by themselves.
  bool DrainUntil(absl::Time deadline);
  void Stop();  // cancels everything and joins the thread

  EngineLoad Load() const;
  absl::Duration HeartbeatAge() const;  // since the loop last turned
  const ModelConfig& model_config() const;
  int64_t parameters() const;
  int context_tokens() const;  // of one sequence: the option, else the model's
  const EngineOptions& options() const;

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace tessera
