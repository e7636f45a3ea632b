#include "server/process/crash_handler.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <utility>

#include "base/base.h"

namespace tessera {
namespace {

// Signal handlers get no object.
std::atomic<CrashHandler*> current{nullptr};

constexpr absl::Duration kTurn = absl::Milliseconds(10);

void Nap() {
  const timespec turn = absl::ToTimespec(kTurn);
  nanosleep(&turn, nullptr);
}

[[noreturn]] void AwaitTheEnd() {
  while (true) Nap();
}

void Copy(const char* text, char* out, size_t size) {
  std::strncpy(out, text, size - 1);
  out[size - 1] = '\0';
}

void WriteLine(const char* text) {
  for (const char* part : {"tesserad: ", text, "\n"}) {
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) return;  // no one is left to read it
  }
}

// Copies the text of the exception in flight.
void Describe(char* out, size_t size) {
  const std::exception_ptr thrown = std::current_exception();
  if (thrown == nullptr) return Copy("std::terminate was called", out, size);
  try {
    std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    Copy("out of memory", out, size);
  } catch (const std::exception& e) {
    Copy(e.what(), out, size);
  } catch (...) {
    Copy("an exception of an unknown kind", out, size);
  }
}

}  // namespace

CrashHandler::CrashHandler(Logger* log) : log_(log) {
  TESSERA_CHECK(sem_init(&wake_, /*pshared=*/0, 0) == 0);
  // SIGABRT must not interrupt the handler's own thread.
  sigset_t abort_signal, before;
  sigemptyset(&abort_signal);
  sigaddset(&abort_signal, SIGABRT);
  TESSERA_CHECK(pthread_sigmask(SIG_BLOCK, &abort_signal, &before) == 0);
  thread_ = std::thread([this] { Main(); });
  TESSERA_CHECK(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  TESSERA_CHECK(current.exchange(this) == nullptr);
  previous_ = std::set_terminate(OnTerminate);
  struct sigaction on_abort {};
  on_abort.sa_handler = OnAbort;
  TESSERA_CHECK(sigaction(SIGABRT, &on_abort, nullptr) == 0);
}

CrashHandler::~CrashHandler() {
  if (ending_) AwaitTheEnd();
  signal(SIGABRT, SIG_DFL);
  std::set_terminate(previous_);
  current = nullptr;
  sem_post(&wake_);
  thread_.join();
  sem_destroy(&wake_);
}

void CrashHandler::SetLastAction(std::function<void()> action) {
  MutexLock lock(mutex_);
  last_action_ = std::move(action);
}

void CrashHandler::OnTerminate() {
  char why[sizeof(why_)];
  Describe(why, sizeof(why));
  if (CrashHandler* handler = current.load(); handler != nullptr) handler->Report(why);
  std::_Exit(kExitFault);
}

void CrashHandler::OnAbort(int) {
  if (CrashHandler* handler = current.load(); handler != nullptr) {
    handler->Report("aborted; if a check has failed, standard error names it above");
  }
  // abort() would end the process by itself, but a watchdog sends SIGABRT too.
  signal(SIGABRT, SIG_DFL);
  raise(SIGABRT);
}

void CrashHandler::Report(const char* why) {
  if (ending_.exchange(true)) {
    // A second failure adds nothing. One of the handler's own thread ends the report.
    if (pthread_equal(pthread_self(), thread_.native_handle()) != 0) {
      reported_ = true;
      return;
    }
    AwaitTheEnd();
  }
  Copy(why, why_, sizeof(why_));
  WriteLine(why_);
  sem_post(&wake_);
  for (absl::Duration waited; !reported_ && waited < kMaxDuration; waited += kTurn) Nap();
}

void CrashHandler::Main() {
  while (sem_wait(&wake_) != 0) {
  }
  if (!ending_) return;
  try {
    log_->Write(LogLevel::kError, "cannot go on", {{"error", why_}});
  } catch (...) {  // no memory for it; standard error has the line
  }
  try {
    MutexLock lock(mutex_);
    if (last_action_) last_action_();
  } catch (...) {  // connections end with the process
  }
  reported_ = true;
}

}  // namespace tessera
