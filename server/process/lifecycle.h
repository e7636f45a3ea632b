// Where the daemon is in its life, who may know it (the health service), and whether new work is
// taken.
//
//   STARTING --Serve--> SERVING --BeginDrain--> DRAINING --Stop--> STOPPED
//
// Health names: "" and "tessera.v1.Inference" say ready (SERVING state), "live" says that the
// engine's loop turns. Draining stops readiness at once but goes on accepting for the drain delay,
// because load balancers take a while to see it. Threads: safe.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "grpcpp/health_check_service_interface.h"

namespace tessera {

class Lifecycle {
 public:
  enum class State { kStarting, kServing, kDraining, kStopped };
  static constexpr const char* kReadyService = "tessera.v1.Inference";
  static constexpr const char* kLiveService = "live";

  explicit Lifecycle(absl::Duration drain_delay) : drain_delay_(drain_delay) {}

  // Publishes the current state to `health` now and on every change, until Detach.
  void Attach(grpc::HealthCheckServiceInterface* health);
  void DetachAll();

  // The model is loaded: ready, unless a drain has begun meanwhile.
  void Serve();
  // Idempotent: the first call sets the moment from which work is refused.
  void BeginDrain(absl::Time now);
  void RefuseNow();  // ends the drain delay
  void Stop();
  void SetLive(bool live);

  State state() const;
  bool live() const;
  // OK, or UNAVAILABLE with RetryInfo: STARTING, DRAINING.
  absl::Status CheckAccepting(absl::Time now) const;
  // OK once Serve was called (also when draining), else UNAVAILABLE: STARTING.
  absl::Status CheckLoaded() const;
  // The moment from which work is refused; InfiniteFuture before BeginDrain.
  absl::Time refuse_time() const;

 private:
  void PublishLocked() TESSERA_REQUIRES(mutex_);

  const absl::Duration drain_delay_;
  mutable Mutex mutex_;
  State state_ TESSERA_GUARDED_BY(mutex_) = State::kStarting;
  bool loaded_ TESSERA_GUARDED_BY(mutex_) = false;
  bool live_ TESSERA_GUARDED_BY(mutex_) = true;
  absl::Time refuse_time_ TESSERA_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::vector<grpc::HealthCheckServiceInterface*> health_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
