#include "engine/request/output_queue.h"

#include <algorithm>
#include <iterator>

#include "base/base.h"

namespace tessera {
namespace {

void Append(Event from, Event& to) {
  to.text += from.text;
  to.ids.insert(to.ids.end(), from.ids.begin(), from.ids.end());
  to.logprobs.insert(to.logprobs.end(), std::make_move_iterator(from.logprobs.begin()),
                     std::make_move_iterator(from.logprobs.end()));
}

}  // namespace

void OutputQueue::Put(Event event, absl::Time now) {
  bool was_empty;
  {
    MutexLock lock(mutex_);
    TESSERA_CHECK(!done_);
    done_ = event.done;
    was_empty = events_.empty();
    if (events_.size() >= kMaxEvents && !event.done) {
      Append(std::move(event), events_.back());
    } else {
      events_.push_back(std::move(event));
    }
    if (was_empty) waiting_since_ = now;
  }
  if (was_empty && notify_) notify_();
}

absl::Duration OutputQueue::WaitingFor(absl::Time now) const {
  MutexLock lock(mutex_);
  if (events_.empty()) return absl::ZeroDuration();
  return std::max(now - waiting_since_, absl::ZeroDuration());
}

std::optional<Event> OutputQueue::Take(absl::Time now) {
  MutexLock lock(mutex_);
  if (events_.empty()) return std::nullopt;
  std::optional<Event> event = std::move(events_.front());
  events_.pop_front();
  waiting_since_ = events_.empty() ? absl::InfiniteFuture() : now;
  return event;
}

}  // namespace tessera
