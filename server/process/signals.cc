#include "server/process/signals.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/base.h"
#include "base/clock.h"

namespace tessera {
namespace {

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void Signals::Block() {
  const sigset_t set = EndSignals();
  TESSERA_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int number : {SIGPIPE, SIGXFSZ}) {
    TESSERA_CHECK(sigaction(number, &ignore, nullptr) == 0);
  }
}

bool Signals::Wait(absl::Duration timeout) {
  const sigset_t set = EndSignals();
  const absl::Time deadline = SteadyNow() + timeout;
  while (true) {
    const timespec left = absl::ToTimespec(std::max(absl::ZeroDuration(), deadline - SteadyNow()));
    if (sigtimedwait(&set, nullptr, &left) > 0) return true;
    if (errno != EINTR) return false;
  }
}

}  // namespace tessera
