// A mutex, its scoped lock and a condition variable that clang's thread-safety analysis checks.
//
// They wrap the standard library's. absl::Mutex carries the same annotations, but distributions
// build Abseil without the thread sanitizer, which then reports false races. The CMake preset
// `thread-safety` turns the analysis on; tests/lint/lint.sh runs it.
// Threads: safe. Errors: none; misuse is undefined, as in the standard library.
#pragma once

#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

#if defined(__clang__)
#define TESSERA_ATTRIBUTE(x) __attribute__((x))
#else
#define TESSERA_ATTRIBUTE(x)
#endif

// A variable that may be read and written only while `m` is locked.
#define TESSERA_GUARDED_BY(m) TESSERA_ATTRIBUTE(guarded_by(m))
// A function that may be called only while these mutexes are locked.
#define TESSERA_REQUIRES(...) TESSERA_ATTRIBUTE(requires_capability(__VA_ARGS__))

namespace tessera {

class TESSERA_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() TESSERA_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() TESSERA_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a mutex from its construction to the end of its scope.
class TESSERA_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& m) TESSERA_ATTRIBUTE(acquire_capability(m)) : mutex_(m) { m.lock(); }
  ~MutexLock() TESSERA_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// A wait may end without a notification, so callers wait in a loop over their condition:
//   while (queue_.empty()) not_empty_.Wait(mutex_);
// There is no wait that takes a predicate: the analysis does not see that a lambda runs locked.
class CondVar {
 public:
  // Unlocks `mutex`, blocks until a notification, and locks it again.
  void Wait(Mutex& mutex) TESSERA_REQUIRES(mutex);

  // Does the same until `deadline` of SteadyNow()'s clock (base/clock.h) at the latest. Returns
  // false if the deadline has passed.
  bool WaitUntil(Mutex& mutex, absl::Time deadline) TESSERA_REQUIRES(mutex);

  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace tessera
