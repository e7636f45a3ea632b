// Turns Ctrl-C into an event. A command installs a handler for what Ctrl-C means at the moment,
// such as cancelling the answer. InterruptSignal triggers it on SIGINT; tests trigger it directly.
//
// Threads: safe. A handler runs on the triggering thread and must not block.
#pragma once

#include <functional>
#include <thread>

#include "base/mutex.h"

namespace tessera::client {

class Interrupt {
 public:
  // Installs a handler for the lifetime of this object. The innermost handler gets the event. After
  // the destructor has returned, the handler neither runs nor will run.
  class Scope {
   public:
    Scope(Interrupt* interrupt, std::function<void()> handler);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Interrupt* interrupt_;
    std::function<void()> outer_;
  };

  // Runs the handler. Returns false if none is installed.
  bool Trigger();

 private:
  Mutex mutex_;
  std::function<void()> handler_ TESSERA_GUARDED_BY(mutex_);
};

// Triggers an Interrupt on SIGINT, from a thread of its own. The process exits with status 130 if
// no handler is installed, or if SIGINT comes twice within a second. Create it before other
// threads, because they inherit the blocked signal.
class InterruptSignal {
 public:
  explicit InterruptSignal(Interrupt* interrupt);
  ~InterruptSignal();
  InterruptSignal(const InterruptSignal&) = delete;
  InterruptSignal& operator=(const InterruptSignal&) = delete;

 private:
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace tessera::client
