// Ends the process if a drain takes too long.
//
// Libraries wait for their own threads and queues when they shut down, for ever if those are
// broken. A thread that exists from the start ends the process with EndProcess once the drain is
// overdue. Threads: safe.
#pragma once

#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace tessera {

class ShutdownWatchdog {
 public:
  ShutdownWatchdog();
  ~ShutdownWatchdog();  // the drain has ended

  // Starts the clock: calls EndProcess after `timeout`.
  void Arm(absl::Duration timeout);

 private:
  void Watch();

  Mutex mutex_;
  CondVar changed_;
  absl::Time deadline_ TESSERA_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tessera
