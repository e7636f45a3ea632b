// The engine as the front ends see it.
//
// There are two implementations: the real engine, and a scripted one in tests, which produces every
// failure (a full queue, a hung step, a stalled reader) in milliseconds. engine/runtime/engine.h
// has the contract of each call.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/runtime/engine.h"

namespace tessera {

class EngineApi {
 public:
  virtual ~EngineApi() = default;
  virtual absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                              int* queue_position) = 0;
  virtual bool Abort(const std::string& request_id) = 0;
  virtual void FlushCaches() = 0;
  virtual void Stop() = 0;
  virtual EngineLoad Load() const = 0;
  virtual absl::Duration HeartbeatAge() const = 0;
};

class RealEngine final : public EngineApi {
 public:
  RealEngine(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
             const EngineOptions& options, Observer* observer)
      : engine_(std::move(model), std::move(tokenizer), options, observer) {}

  absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                      int* queue_position) override {
    return engine_.Submit(std::move(request), std::move(output_queue), queue_position);
  }
  bool Abort(const std::string& request_id) override { return engine_.Abort(request_id); }
  void FlushCaches() override { engine_.FlushCaches(); }
  void Stop() override { engine_.Stop(); }
  EngineLoad Load() const override { return engine_.Load(); }
  absl::Duration HeartbeatAge() const override { return engine_.HeartbeatAge(); }

 private:
  Engine engine_;
};

}  // namespace tessera
