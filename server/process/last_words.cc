#include "server/process/last_words.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <utility>

namespace tessera {
namespace {

// Handlers of the process know no object.
std::atomic<LastWords*> current{nullptr};

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
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) return;  // nobody is left to tell
  }
}

// What the exception in flight says.
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

LastWords::LastWords(Logger* log) : log_(log) {
  TESSERA_CHECK(sem_init(&wake_, /*pshared=*/0, 0) == 0);
  // The teller must not be the one who is interrupted.
  sigset_t abort_signal, before;
  sigemptyset(&abort_signal);
  sigaddset(&abort_signal, SIGABRT);
  TESSERA_CHECK(pthread_sigmask(SIG_BLOCK, &abort_signal, &before) == 0);
  teller_ = std::thread([this] { Main(); });
  TESSERA_CHECK(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  TESSERA_CHECK(current.exchange(this) == nullptr);
  previous_ = std::set_terminate(OnTerminate);
  struct sigaction on_abort {};
  on_abort.sa_handler = OnAbort;
  TESSERA_CHECK(sigaction(SIGABRT, &on_abort, nullptr) == 0);
}

LastWords::~LastWords() {
  if (ending_) AwaitTheEnd();
  signal(SIGABRT, SIG_DFL);
  std::set_terminate(previous_);
  current = nullptr;
  sem_post(&wake_);
  teller_.join();
  sem_destroy(&wake_);
}

void LastWords::SetFarewell(std::function<void()> farewell) {
  MutexLock lock(mutex_);
  farewell_ = std::move(farewell);
}

void LastWords::OnTerminate() {
  char why[sizeof(why_)];
  Describe(why, sizeof(why));
  if (LastWords* words = current.load(); words != nullptr) words->Tell(why);
  std::_Exit(kExitFault);
}

void LastWords::OnAbort(int) {
  if (LastWords* words = current.load(); words != nullptr) {
    words->Tell("aborted; if a check has failed, it stands above, on standard error");
  }
  // Not every SIGABRT comes from abort(), which would see to this: a watchdog sends it too.
  signal(SIGABRT, SIG_DFL);
  raise(SIGABRT);
}

void LastWords::Tell(const char* why) {
  if (ending_.exchange(true)) {
    // A second failure: there is nothing to add. The teller's own ends the telling.
    if (pthread_equal(pthread_self(), teller_.native_handle()) != 0) {
      told_ = true;
      return;
    }
    AwaitTheEnd();
  }
  Copy(why, why_, sizeof(why_));
  WriteLine(why_);
  sem_post(&wake_);
  for (absl::Duration waited; !told_ && waited < kLongest; waited += kTurn) Nap();
}

void LastWords::Main() {
  while (sem_wait(&wake_) != 0) {
  }
  if (!ending_) return;
  try {
    log_->Write(LogLevel::kError, "cannot go on", {{"error", why_}});
  } catch (...) {  // no memory for it; standard error has the line
  }
  try {
    MutexLock lock(mutex_);
    if (farewell_) farewell_();
  } catch (...) {  // connections end with the process
  }
  told_ = true;
}

}  // namespace tessera
