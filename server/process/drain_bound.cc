#include "server/process/drain_bound.h"

#include <algorithm>

#include "base/clock.h"
#include "base/end_process.h"

namespace tessera {

DrainBound::DrainBound() : thread_([this] { Watch(); }) {}

DrainBound::~DrainBound() {
  {
    MutexLock lock(mutex_);
    done_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void DrainBound::Begin(absl::Duration longest) {
  MutexLock lock(mutex_);
  latest_ = SteadyNow() + longest;
  changed_.notify_one();
}

void DrainBound::Watch() {
  std::unique_lock<Mutex> lock(mutex_);
  while (!done_) {
    if (SteadyNow() >= latest_) EndProcess("the drain does not end");
    const absl::Duration turn = std::min(latest_ - SteadyNow(), absl::Hours(1));
    changed_.wait_for(lock, absl::ToChronoNanoseconds(turn));
  }
}

}  // namespace tessera
