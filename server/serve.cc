#include "server/serve.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "base/version.h"
#include "server/daemon.h"
#include "server/load_model.h"
#include "server/observability/log.h"
#include "server/process/crash_handler.h"
#include "server/process/flags.h"
#include "server/process/shutdown_watchdog.h"
#include "server/process/signals.h"

namespace tessera {
namespace {

// The time that a drain needs after its delay and timeout: the listeners' graces and the engine's
// last step.
constexpr absl::Duration kDrainGrace = absl::Seconds(10);

// Ends the process on a signal while the model is loading, which can take minutes. There is nothing
// to drain yet. It must be destroyed before the first request is accepted.
class EndWhileLoading {
 public:
  explicit EndWhileLoading(Logger* log) : thread_([this, log] { Watch(log); }) {}
  ~EndWhileLoading() {
    loaded_ = true;
    thread_.join();
  }

 private:
  void Watch(Logger* log) {
    while (!loaded_) {
      if (!Signals::Wait(absl::Milliseconds(20))) continue;
      log->Write(LogLevel::kInfo, "stopped while loading");
      std::_Exit(0);
    }
  }
  std::atomic<bool> loaded_{false};
  std::thread thread_;
};

absl::Status RunDaemon(const ServerConfig& config, const DeviceOpener& open,
                       CrashHandler* crash_handler, Logger* log) {
  log->Write(LogLevel::kInfo, "starting", {{"version", Version()}, {"model", config.model}});
  std::string flags;
  for (const auto& [name, value] : config.effective) {
    absl::StrAppend(&flags, flags.empty() ? "" : " ", "--", name, "=", value);
  }
  log->Write(LogLevel::kInfo, "configuration", {{"flags", flags}});
  ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, open(config));
  const std::string device = DescribeDevice(*ops, config);
  ShutdownWatchdog watchdog;  // outlives the daemon, whose destructor is part of the drain
  const auto load = [&](const ServerConfig& c, Observer* observer, Runtime* runtime) {
    const EndWhileLoading guard(log);
    return LoadModel(c, std::move(ops), observer, runtime);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<Daemon> daemon, Daemon::Start(config, log, load, device));
  crash_handler->SetLastAction([&daemon] { daemon->Abandon(); });
  while (!Signals::Wait(absl::Hours(1))) {
  }
  watchdog.Arm(config.drain_delay + config.drain_timeout + kDrainGrace);
  daemon->Drain(Signals::Wait);
  crash_handler->SetLastAction(nullptr);
  return absl::OkStatus();
}

}  // namespace

int Serve(int argc, char** argv, const DeviceOpener& open) {
  const absl::StatusOr<ServerConfig> config = ParseFlags(argc, argv);
  if (!config.ok()) {
    std::fprintf(stderr, "tesserad: %s\n", std::string(config.status().message()).c_str());
    return 1;
  }
  const absl::StatusOr<std::unique_ptr<Logger>> log = Logger::Open(config->log);
  if (!log.ok()) {
    std::fprintf(stderr, "tesserad: %s\n", std::string(log.status().message()).c_str());
    return 1;
  }
  Signals::Block();
  CrashHandler crash_handler(log->get());
  const absl::Status status = RunDaemon(*config, open, &crash_handler, log->get());
  if (status.ok()) return 0;
  (*log)->Write(LogLevel::kError, "cannot serve", {{"error", status.message()}});
  std::fprintf(stderr, "tesserad: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace tessera
