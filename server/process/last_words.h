// What tesserad does before it ends because it cannot go on: its device has failed or its memory is
// used up (base/end_process.h), nobody caught an exception, a check of ours has failed, or a
// watchdog sent SIGABRT.
//
// The thread to which that happens never returns to its work, so nothing that it would have made is
// delivered. It writes one line to standard error and wakes a thread that has waited for this from
// the start; that one writes the log and says farewell to whoever is connected. Then the process
// leaves: with kExitFault, or, after SIGABRT, by that signal. The failed thread may
// hold any lock, and there may be no memory: whatever happens, all this takes no longer than
// kLongest. Threads: safe. REQUIRES: one at a time in a process.
#pragma once

#include <semaphore.h>

#include <atomic>
#include <exception>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "base/base.h"
#include "server/observability/log.h"

namespace tessera {

class LastWords {
 public:
  static constexpr int kExitFault = 70;  // EX_SOFTWARE of sysexits.h
  static constexpr absl::Duration kLongest = absl::Seconds(3);

  // Takes over std::terminate and SIGABRT; `log` must outlive it.
  explicit LastWords(Logger* log);
  ~LastWords();  // gives them back; if the process is ending, waits for its end

  // What follows the log's line; empty: nothing. What was set before does not run any more when
  // this returns.
  void SetFarewell(std::function<void()> farewell);

 private:
  static void OnTerminate();
  static void OnAbort(int);
  void Tell(const char* why);  // async-signal-safe
  void Main();

  Logger* log_;
  sem_t wake_;
  std::atomic<bool> ending_{false};  // somebody has called Tell
  std::atomic<bool> told_{false};
  char why_[512] = {};
  Mutex mutex_;
  std::function<void()> farewell_ TESSERA_GUARDED_BY(mutex_);
  std::terminate_handler previous_ = nullptr;
  std::thread teller_;
};

}  // namespace tessera
