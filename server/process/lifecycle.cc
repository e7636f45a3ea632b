#include "server/process/lifecycle.h"

#include "server/api/error_details.h"

namespace tessera {
namespace {

absl::Status StillStarting() {
  return RetryLater(absl::StatusCode::kUnavailable, "the server is loading its model",
                    reason::kStarting, absl::Seconds(5));
}

}  // namespace

void Lifecycle::PublishLocked() {
  const bool ready = state_ == State::kServing;
  for (grpc::HealthCheckServiceInterface* health : health_) {
    health->SetServingStatus("", ready);
    health->SetServingStatus(kReadyService, ready);
    health->SetServingStatus(kLiveService, live_ && state_ != State::kStopped);
  }
}

void Lifecycle::Attach(grpc::HealthCheckServiceInterface* health) {
  MutexLock lock(mutex_);
  health_.push_back(health);
  PublishLocked();
}

void Lifecycle::DetachAll() {
  MutexLock lock(mutex_);
  health_.clear();
}

void Lifecycle::Serve() {
  MutexLock lock(mutex_);
  loaded_ = true;
  if (state_ != State::kStarting) return;  // told to drain while loading
  state_ = State::kServing;
  PublishLocked();
}

void Lifecycle::BeginDrain(absl::Time now) {
  MutexLock lock(mutex_);
  if (state_ == State::kDraining || state_ == State::kStopped) return;
  refuse_time_ = state_ == State::kServing ? now + drain_delay_ : now;
  state_ = State::kDraining;
  PublishLocked();
}

void Lifecycle::RefuseNow() {
  MutexLock lock(mutex_);
  refuse_time_ = absl::InfinitePast();
}

void Lifecycle::Stop() {
  MutexLock lock(mutex_);
  state_ = State::kStopped;
  PublishLocked();
}

void Lifecycle::SetLive(bool live) {
  MutexLock lock(mutex_);
  if (live == live_) return;
  live_ = live;
  PublishLocked();
}

Lifecycle::State Lifecycle::state() const {
  MutexLock lock(mutex_);
  return state_;
}

bool Lifecycle::live() const {
  MutexLock lock(mutex_);
  return live_;
}

absl::Status Lifecycle::CheckLoaded() const {
  MutexLock lock(mutex_);
  return loaded_ ? absl::OkStatus() : StillStarting();
}

absl::Time Lifecycle::refuse_time() const {
  MutexLock lock(mutex_);
  return refuse_time_;
}

absl::Status Lifecycle::CheckAccepting(absl::Time now) const {
  MutexLock lock(mutex_);
  if (state_ == State::kServing || (state_ == State::kDraining && now < refuse_time_)) {
    return absl::OkStatus();
  }
  if (state_ == State::kStarting) return StillStarting();
  return RetryLater(absl::StatusCode::kUnavailable, "the server is draining", reason::kDraining,
                    absl::Seconds(1));
}

}  // namespace tessera
