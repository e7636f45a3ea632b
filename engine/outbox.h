// The bounded queue by which one request's events leave the engine for its reader.
//
// The engine never blocks on a reader: when kMaxEvents wait, a new delta is merged into the last
// one, so a slow reader gets the same text in fewer, larger pieces. A reader that takes nothing for
// the engine's stall limit is given up (Engine checks Stalled).
// Threads: safe. The notify callback is called by the engine's thread, never under the lock, at
// most once between two Take calls that leave the box empty; it must not block.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>

#include "absl/time/time.h"
#include "engine/request.h"
#include "kernels/base.h"

namespace tessera {

class Outbox {
 public:
  static constexpr size_t kMaxEvents = 64;

  // `notify` is called whenever an empty box gets an event.
  explicit Outbox(std::function<void()> notify) : notify_(std::move(notify)) {}

  // --- engine's side
  void Put(Event event, absl::Time now);
  // The time since the oldest waiting event could have been taken; zero when the box is empty.
  absl::Duration WaitingFor(absl::Time now) const;
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // --- reader's side
  std::optional<Event> Take(absl::Time now);  // nullopt: nothing now
  // The reader is gone or wants no more: the engine frees the request within one step.
  void Cancel() { cancelled_.store(true, std::memory_order_release); }

 private:
  std::function<void()> notify_;
  std::atomic<bool> cancelled_{false};
  mutable Mutex mutex_;
  std::deque<Event> events_ TESSERA_GUARDED_BY(mutex_);
  absl::Time waiting_since_ TESSERA_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace tessera
