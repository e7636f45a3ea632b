// Engine::Loop's side that other threads call: admission, abort, drain, load.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/runtime/engine_core.h"

namespace tessera {

absl::Status Engine::Loop::Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                                  int* queue_position) {
  const auto prompt = static_cast<int64_t>(request.prompt.ids.size());
  const int64_t total = prompt + request.stop.max_tokens;
  TESSERA_CHECK(prompt > 0 && request.stop.max_tokens > 0 && request.policy != nullptr);
  if (total > rules_.context_tokens)
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.max_tokens: prompt of ", prompt, " tokens + max_tokens ",
                     request.stop.max_tokens, " exceed the context of ", rules_.context_tokens));
  const KvGeometry& geometry = arena_.geometry();
  request.policy = request.policy->ForModel(model_->config().text.family);
  if (const absl::Status fits = request.policy->CheckGeometry(geometry); !fits.ok())
    return absl::FailedPreconditionError(absl::StrCat("kv_policy: ", fits.message()));
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    if ((request.policy->FormatMask(geometry) >> f & 1) == 0 || model_->ops().Supports(format))
      continue;
    return absl::FailedPreconditionError(
        absl::StrCat("kv_policy: ", request.policy->Text(), " stores pages of format ",
                     FormatName(format), ", which device ", model_->ops().name(), " lacks"));
  }
  // What follows the commit is stored as an answer is.
  const std::vector<uint8_t> vision = VisionFlags(request.prompt);
  const int64_t commit = request.commit_tokens > 0 ? request.commit_tokens : prompt;
  TESSERA_CHECK(commit <= prompt &&
                (request.prompt.images.empty() || request.prompt.images.back().begin < commit));
  const int64_t bytes = request.policy->PeakBytes(
      PromptView{absl::MakeConstSpan(vision).first(commit)}, total - commit, geometry);
  if (bytes > arena_.total_bytes())
    return absl::InvalidArgumentError(absl::StrCat(
        "stopping.max_tokens: ", total, " tokens need ", bytes, " bytes of KV cache under policy ",
        request.policy->Text(), ", the server has ", arena_.total_bytes()));

  MutexLock lock(mutex_);
  if (stopping_ || draining_) return absl::UnavailableError("the server is draining");
  const int waiting = load_.waiting + static_cast<int>(inbox_.size());
  if (waiting >= options_.max_queue)
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full (", options_.max_queue, " requests wait)"));
  if (!ids_.emplace(request.id, output_queue).second)
    return absl::AlreadyExistsError(
        absl::StrCat("request_id: '", request.id, "' is the id of a live request"));
  if (queue_position != nullptr) *queue_position = waiting;
  inbox_.push_back({std::move(request), std::move(output_queue), SteadyNow()});
  wake_.notify_one();
  return absl::OkStatus();
}

bool Engine::Loop::Abort(const std::string& request_id) {
  MutexLock lock(mutex_);
  const auto it = ids_.find(request_id);
  if (it == ids_.end()) return false;
  it->second->Cancel();
  wake_.notify_one();
  return true;
}

void Engine::Loop::FlushCaches() {
  MutexLock lock(mutex_);
  flush_ = true;
  wake_.notify_one();
}

void Engine::Loop::BeginDrain() {
  MutexLock lock(mutex_);
  draining_ = true;
}

bool Engine::Loop::DrainUntil(absl::Time deadline) {
  BeginDrain();
  std::unique_lock<Mutex> lock(mutex_);
  const auto done = [this] { return ids_.empty(); };
  if (deadline == absl::InfiniteFuture()) {
    idle_.wait(lock, done);
    return true;
  }
  if (idle_.wait_for(lock, absl::ToChronoNanoseconds(deadline - SteadyNow()), done)) return true;
  for (auto& [id, output_queue] : ids_) output_queue->Cancel();
  wake_.notify_one();
  idle_.wait(lock, done);
  return false;
}

void Engine::Loop::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

EngineLoad Engine::Loop::Load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.waiting += static_cast<int>(inbox_.size());
  return load;
}

absl::Duration Engine::Loop::HeartbeatAge() const {
  return SteadyNow() - absl::FromUnixNanos(heartbeat_nanos_.load(std::memory_order_acquire));
}

}  // namespace tessera
