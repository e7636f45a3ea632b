#include "engine/runtime/request_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "engine/request/field_error.h"

namespace tessera {
namespace {

// An idle engine polls so often, which is its heartbeat.
constexpr absl::Duration kIdleTurn = absl::Milliseconds(100);

}  // namespace

RequestQueue::RequestQueue(int max_queue)
    : max_queue_(max_queue), heartbeat_nanos_(absl::ToUnixNanos(SteadyNow())) {}

absl::Status RequestQueue::Push(Request request, std::shared_ptr<OutputQueue> output_queue,
                                int* position) {
  MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is stopping");
  const int waiting = load_.waiting + static_cast<int>(incoming_.size());
  if (waiting >= max_queue_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full (", max_queue_, " requests wait)"));
  }
  if (!live_.emplace(request.id, output_queue).second) {
    return RequestFieldError({.field = RequestField::kId},
                             absl::StrCat("'", request.id, "' is the id of a live request"),
                             absl::StatusCode::kAlreadyExists);
  }
  if (position != nullptr) *position = waiting;
  incoming_.push_back({std::move(request), std::move(output_queue), SteadyNow()});
  wake_.NotifyOne();
  return absl::OkStatus();
}

bool RequestQueue::Abort(const std::string& request_id) {
  MutexLock lock(mutex_);
  const auto it = live_.find(request_id);
  if (it == live_.end()) return false;
  it->second->Cancel();
  wake_.NotifyOne();
  return true;
}

void RequestQueue::FlushCaches() {
  MutexLock lock(mutex_);
  flush_ = true;
  wake_.NotifyOne();
}

void RequestQueue::Stop() {
  MutexLock lock(mutex_);
  stopping_ = true;
  wake_.NotifyOne();
}

EngineLoad RequestQueue::Load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.waiting += static_cast<int>(incoming_.size());
  return load;
}

absl::Duration RequestQueue::HeartbeatAge() const {
  return SteadyNow() - absl::FromUnixNanos(heartbeat_nanos_.load(std::memory_order_acquire));
}

RequestQueue::Polled RequestQueue::Poll() {
  heartbeat_nanos_.store(absl::ToUnixNanos(SteadyNow()), std::memory_order_release);
  MutexLock lock(mutex_);
  Polled polled;
  polled.requests.swap(incoming_);
  // They count as waiting until the scheduler's own count is published.
  load_.waiting += static_cast<int>(polled.requests.size());
  polled.flush_caches = std::exchange(flush_, false);
  polled.stop = stopping_;
  return polled;
}

void RequestQueue::WaitForWork() {
  MutexLock lock(mutex_);
  if (incoming_.empty() && !stopping_ && !flush_) wake_.WaitUntil(mutex_, SteadyNow() + kIdleTurn);
}

void RequestQueue::Remove(const std::string& request_id) {
  MutexLock lock(mutex_);
  live_.erase(request_id);
}

void RequestQueue::Publish(const EngineLoad& load) {
  MutexLock lock(mutex_);
  load_ = load;
}

}  // namespace tessera
