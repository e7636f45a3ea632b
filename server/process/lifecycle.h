// The state of the daemon, who may know it (the health service), and whether new work is taken.
//
//   STARTING --Serve--> SERVING --BeginDrain--> DRAINING --Stop--> STOPPED
//
// The health services "" and "tessera.v1.Inference" report readiness (SERVING). The service "live"
// reports that the engine's loop turns. A drain ends readiness at once, but work is taken until the
// drain delay is over, because load balancers take a while to notice. Threads: safe.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpcpp/health_check_service_interface.h"

namespace tessera {

class Lifecycle {
 public:
  enum class State { kStarting, kServing, kDraining, kStopped };
  static constexpr const char* kReadyService = "tessera.v1.Inference";
  static constexpr const char* kLiveService = "live";

  explicit Lifecycle(absl::Duration drain_delay) : drain_delay_(drain_delay) {}

  // Publishes the state to `health` now and on every change, until DetachAll.
  void Attach(grpc::HealthCheckServiceInterface* health);
  void DetachAll();

  // Makes the daemon ready, because its model is loaded, unless a drain has begun.
  void Serve();
  // Starts the drain. Idempotent: the first call sets the moment from which work is refused.
  void BeginDrain(absl::Time now);
  void RefuseNow();  // ends the drain delay
  void Stop();
  void SetLive(bool live);

  State state() const;
  bool live() const;
  // Returns OK, or UNAVAILABLE with RetryInfo: STARTING, DRAINING.
  absl::Status CheckAccepting(absl::Time now) const;
  // Returns OK once Serve was called, also in a drain; else UNAVAILABLE: STARTING.
  absl::Status CheckLoaded() const;
  // Returns the moment from which work is refused; InfiniteFuture before BeginDrain.
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
