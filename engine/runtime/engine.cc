#include "engine/runtime/engine.h"

#include "engine/runtime/engine_core.h"

namespace tessera {

Engine::Engine(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineOptions& options, Observer* observer)
    : loop_(std::make_unique<Loop>(std::move(model), std::move(tokenizer), options, observer)) {}

Engine::~Engine() { Stop(); }

absl::Status Engine::Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                            int* queue_position) {
  return loop_->Submit(std::move(request), std::move(output_queue), queue_position);
}
bool Engine::Abort(const std::string& request_id) { return loop_->Abort(request_id); }
void Engine::FlushCaches() { loop_->FlushCaches(); }
void Engine::BeginDrain() { loop_->BeginDrain(); }
bool Engine::DrainUntil(absl::Time deadline) { return loop_->DrainUntil(deadline); }
void Engine::Stop() { loop_->Stop(); }
EngineLoad Engine::Load() const { return loop_->Load(); }
absl::Duration Engine::HeartbeatAge() const { return loop_->HeartbeatAge(); }
const ModelConfig& Engine::model_config() const { return loop_->model().config(); }
int64_t Engine::parameters() const { return loop_->model().parameters(); }
int Engine::context_tokens() const { return loop_->context_tokens(); }
const EngineOptions& Engine::options() const { return loop_->options(); }

}  // namespace tessera
