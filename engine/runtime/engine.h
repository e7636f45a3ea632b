// The engine: turns requests into token events.
//
// One thread owns the device, the model and the KV cache (EngineCore). Requests reach it through a
// RequestQueue, and events leave through the OutputQueue of each request. Ownership: the engine
// owns model and cache; an OutputQueue is shared with its reader. Threads: every function is safe
// from any thread. Errors: Submit refuses what can never run; everything later arrives as an Event.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/model/llava.h"
#include "engine/request/observer.h"
#include "engine/request/output_queue.h"
#include "engine/request/request.h"
#include "engine/runtime/engine_options.h"
#include "engine/runtime/request_queue.h"
#include "engine/text/tokenizer.h"

namespace tessera {

class EngineCore;

class Engine {
 public:
  // Takes the model and allocates the cache in the model's device memory. `observer` may be null,
  // else it must outlive the engine. Starts the thread.
  // REQUIRES: kv_cache_bytes > 0, max_sequences <= max_batch_tokens <= model->max_rows().
  Engine(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
         const EngineOptions& options, Observer* observer);
  ~Engine();  // Stop()

  // Takes the request or says why not: INVALID_ARGUMENT (prompt and max_tokens exceed the context
  // or the arena), FAILED_PRECONDITION (the policy does not fit the model), RESOURCE_EXHAUSTED
  // (queue full), UNAVAILABLE (draining, stopped), ALREADY_EXISTS (request id live). On success
  // `*queue_position` is the number of requests that wait ahead.
  absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                      int* queue_position);

  bool Abort(const std::string& request_id) { return queue_.Abort(request_id); }
  void FlushCaches() { queue_.FlushCaches(); }  // done before the next step
  void Stop();                                  // cancels everything and joins the thread

  EngineLoad Load() const { return queue_.Load(); }
  absl::Duration HeartbeatAge() const { return queue_.HeartbeatAge(); }
  const ModelConfig& model_config() const;
  int64_t parameters() const;
  int context_tokens() const;  // of one sequence: the option, else the model's
  const EngineOptions& options() const { return options_; }

 private:
  absl::Status CheckPolicy(Request* request) const;
  absl::Status CheckSize(const Request& request) const;

  EngineOptions options_;
  RequestQueue queue_;
  std::unique_ptr<EngineCore> core_;
  std::thread thread_;
};

}  // namespace tessera
