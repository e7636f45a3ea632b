// Ends the process in order when it cannot go on.
//
// That is so when the device has failed or memory is used up (base/end_process.h), when an
// exception was not caught or one of our checks has failed, and when a watchdog sent SIGABRT.
//
// The failed thread never returns to its work, so nothing that it computed is delivered. It writes
// one line to standard error and wakes the handler's thread, which exists from the start. That
// thread writes the log and runs the last action, which tells the clients. Then the process ends:
// with kExitFault, or after SIGABRT by that signal. The failed thread may hold any lock, and there
// may be no memory left, so all of this takes kMaxDuration at most.
// Threads: safe. REQUIRES: at most one in a process.
#pragma once

#include <semaphore.h>

#include <atomic>
#include <exception>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/observability/log.h"

namespace tessera {

class CrashHandler {
 public:
  static constexpr int kExitFault = 70;  // EX_SOFTWARE of sysexits.h
  static constexpr absl::Duration kMaxDuration = absl::Seconds(3);

  // Takes over std::terminate and SIGABRT. `log` must outlive the handler.
  explicit CrashHandler(Logger* log);
  // Restores both. Blocks for ever if the process is ending.
  ~CrashHandler();

  // Sets what runs after the log line; empty: nothing. The previous action does not run any more
  // once this has returned.
  void SetLastAction(std::function<void()> action);

 private:
  static void OnTerminate();
  static void OnAbort(int);
  void Report(const char* why);  // async-signal-safe
  void Main();

  Logger* log_;
  sem_t wake_;
  std::atomic<bool> ending_{false};    // Report was called
  std::atomic<bool> reported_{false};  // the handler's thread is done
  char why_[512] = {};
  Mutex mutex_;
  std::function<void()> last_action_ TESSERA_GUARDED_BY(mutex_);
  std::terminate_handler previous_ = nullptr;
  std::thread thread_;
};

}  // namespace tessera
