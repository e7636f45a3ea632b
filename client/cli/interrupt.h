// The interrupt key as an event: a command says what Ctrl-C means at the moment (cancel the answer,
// stop sending), and whoever sees the signal triggers it.
//
// Threads: safe. A handler runs on the triggering thread and must not block.
#pragma once

#include <functional>
#include <thread>

#include "base/mutex.h"

namespace tessera::client {

class Interrupt {
 public:
  // Installs a handler for its own lifetime; the innermost one gets the event. After the destructor
  // returned the handler is not running and will not run.
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

  // False if no handler is installed.
  bool Trigger();

 private:
  Mutex mutex_;
  std::function<void()> handler_ TESSERA_GUARDED_BY(mutex_);
};

// Routes SIGINT to an Interrupt by a thread of its own; without a handler, or when the key comes
// twice within a second, the process ends with status 130. Must be made before other threads, since
// they inherit the blocked signal.
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
