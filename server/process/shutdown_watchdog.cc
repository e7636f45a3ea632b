#include "server/process/shutdown_watchdog.h"

#include <algorithm>

#include "base/clock.h"
#include "base/end_process.h"

namespace tessera {

ShutdownWatchdog::ShutdownWatchdog() : thread_([this] { Watch(); }) {}

ShutdownWatchdog::~ShutdownWatchdog() {
  {
    MutexLock lock(mutex_);
    done_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void ShutdownWatchdog::Arm(absl::Duration timeout) {
  MutexLock lock(mutex_);
  deadline_ = SteadyNow() + timeout;
  changed_.notify_one();
}

void ShutdownWatchdog::Watch() {
  std::unique_lock<Mutex> lock(mutex_);
  while (!done_) {
    if (SteadyNow() >= deadline_) EndProcess("the drain does not end");
    const absl::Duration turn = std::min(deadline_ - SteadyNow(), absl::Hours(1));
    changed_.wait_for(lock, absl::ToChronoNanoseconds(turn));
  }
}

}  // namespace tessera
