// The bounded queue of one request's events from the engine to its reader.
//
// The engine never blocks on a reader: when kMaxEvents wait, a new delta is merged into the last
// one, so a slow reader gets the same text, ids and logprobs in the same order, in fewer, larger
// pieces. The event with `done` is never merged; it may be the one beyond kMaxEvents and must be
// the last (CHECK). The engine cancels a request whose reader takes nothing for its stall limit
// (it checks WaitingFor). Threads: safe; one engine thread puts, any thread takes. The engine's
// thread calls the notify callback without the lock, once for each Put into an empty queue; the
// callback must not block. By then the reader may have taken the event already.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/request/request.h"

namespace tessera {

class OutputQueue {
 public:
  static constexpr size_t kMaxEvents = 64;

  // `notify` (may be empty) is called whenever an empty queue gets an event.
  explicit OutputQueue(std::function<void()> notify) : notify_(std::move(notify)) {}

  // --- engine's side
  void Put(Event event, absl::Time now);
  // Returns how long the oldest event has waited: since it was put, or since the reader took the
  // one before it. Zero if the queue is empty.
  absl::Duration WaitingFor(absl::Time now) const;
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // --- reader's side
  std::optional<Event> Take(absl::Time now);  // nullopt: nothing now
  // Tells the engine that the reader wants no more. It frees the request within one step.
  void Cancel() { cancelled_.store(true, std::memory_order_release); }

 private:
  std::function<void()> notify_;
  std::atomic<bool> cancelled_{false};
  mutable Mutex mutex_;
  std::deque<Event> events_ TESSERA_GUARDED_BY(mutex_);
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;  // the last event was put
  absl::Time waiting_since_ TESSERA_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace tessera
