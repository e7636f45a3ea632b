// Waits for SIGTERM and SIGINT, instead of handling them where little is allowed.
//
// Block before any thread starts, because threads inherit the mask. Threads: one waiter.
#pragma once

#include "absl/time/time.h"

namespace tessera {

class Signals {
 public:
  // Blocks SIGTERM and SIGINT in this thread and those it will start, and ignores SIGPIPE and
  // SIGXFSZ: a reader that went away and a log that may not grow are errors of one write, not the
  // end of the daemon.
  static void Block();

  // Returns true when SIGTERM or SIGINT arrived, false after `timeout`.
  static bool Wait(absl::Duration timeout);
};

}  // namespace tessera
