#include "client/cli/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/base.h"

namespace tessera::client {

Interrupt::Scope::Scope(Interrupt* interrupt, std::function<void()> handler)
    : interrupt_(interrupt) {
  MutexLock lock(interrupt_->mutex_);
  outer_ = std::exchange(interrupt_->handler_, std::move(handler));
}

Interrupt::Scope::~Scope() {
  MutexLock lock(interrupt_->mutex_);
  interrupt_->handler_ = std::move(outer_);
}

bool Interrupt::Trigger() {
  MutexLock lock(mutex_);
  if (!handler_) return false;
  handler_();
  return true;
}

InterruptSignal::InterruptSignal(Interrupt* interrupt) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  TESSERA_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0);
  thread_ = std::thread([this, interrupt] {
    auto last = std::chrono::steady_clock::time_point::min();
    while (true) {
      pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0) continue;
      if (fds[1].revents != 0) return;
      signalfd_siginfo info;
      if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
      const auto now = std::chrono::steady_clock::now();
      const bool twice = last != std::chrono::steady_clock::time_point::min() &&
                         now - last < std::chrono::seconds(1);
      last = now;
      if (twice || !interrupt->Trigger()) _exit(130);
    }
  });
}

InterruptSignal::~InterruptSignal() {
  const uint64_t one = 1;
  TESSERA_CHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(signal_fd_);
  close(stop_fd_);
}

}  // namespace tessera::client
