#include "base/mutex.h"

#include <algorithm>

#include "base/clock.h"

namespace tessera {

void CondVar::Wait(Mutex& mutex) {
  std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
  condition_.wait(lock);
  lock.release();
}

bool CondVar::WaitUntil(Mutex& mutex, absl::Time deadline) {
  // The standard library adds the duration to its clock, which must not overflow.
  const absl::Duration longest = std::min(deadline - SteadyNow(), absl::Hours(1));
  std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
  condition_.wait_for(lock, absl::ToChronoNanoseconds(longest));
  lock.release();
  return SteadyNow() < deadline;
}

}  // namespace tessera
