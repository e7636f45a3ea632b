// A bound on how long a drain may take.
//
// Libraries' shutdowns wait for their own threads and queues, for ever if those are broken; an
// orchestrator would wait for its kill. So a thread that exists from the start ends the process,
// with LastWords' status, once a drain is overdue. Threads: safe.
#pragma once

#include <condition_variable>
#include <thread>

#include "absl/time/time.h"
#include "base/base.h"

namespace tessera {

class DrainBound {
 public:
  DrainBound();
  ~DrainBound();  // the drain has ended

  // From now on: EndProcess after `longest`.
  void Begin(absl::Duration longest);

 private:
  void Watch();

  Mutex mutex_;
  std::condition_variable_any changed_;
  absl::Time latest_ TESSERA_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tessera
