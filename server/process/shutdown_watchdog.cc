#include "server/process/shutdown_watchdog.h"

#include "base/clock.h"
#include "base/end_process.h"

namespace tessera {

ShutdownWatchdog::ShutdownWatchdog() : thread_([this] { Watch(); }) {}

ShutdownWatchdog::~ShutdownWatchdog() {
  {
    MutexLock lock(mutex_);
    done_ = true;
    changed_.NotifyOne();
  }
  thread_.join();
}

void ShutdownWatchdog::Arm(absl::Duration timeout) {
  MutexLock lock(mutex_);
  deadline_ = SteadyNow() + timeout;
  changed_.NotifyOne();
}

void ShutdownWatchdog::Watch() {
  MutexLock lock(mutex_);
  while (!done_) {
    if (SteadyNow() >= deadline_) EndProcess("the drain does not end");
    changed_.WaitUntil(mutex_, deadline_);
  }
}

}  // namespace tessera
