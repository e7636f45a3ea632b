#include "server/daemon.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/end_process.h"
#include "base/version.h"
#include "cache/policies/registry.h"
#include "server/api/error_details.h"
#include "server/grpc/grpc_log.h"
#include "server/net/address.h"
#include "server/process/flags.h"

namespace tessera {
namespace {

constexpr absl::Duration kWatchTurn = absl::Milliseconds(100);
// Short enough for tests to wait for, long enough to cost nothing.
constexpr absl::Duration kReloadInterval = absl::Seconds(1);
constexpr absl::Duration kShutdownGrace = absl::Seconds(1);
// Time to send what the sockets have accepted.
constexpr absl::Duration kSendGrace = absl::Milliseconds(200);
// One thread does about 30,000 writes a second; a second one hides its wake-ups.
constexpr int kSenderThreads = 2;

absl::Status WithFlag(const char* flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("--", flag, ": ", status.message()));
}

std::vector<std::string> Names(const TokenTable* tokens) {
  std::vector<std::string> names;
  if (tokens == nullptr) return names;
  for (const Tenant& tenant : tokens->tenants()) names.push_back(tenant.name);
  return names;
}

}  // namespace

Daemon::Daemon(const ServerConfig& config, Logger* log, std::string device,
               std::shared_ptr<const TokenTable> tokens)
    : config_(config),
      device_(std::move(device)),
      log_(log),
      metrics_(Version(), config_.model_name, device_, Names(tokens.get())),
      access_(config_.token_file, std::move(tokens), &metrics_),
      lifecycle_(config_.drain_delay),
      senders_(
          std::make_unique<WorkerPool>("tessera-send", kSenderThreads, WorkerPool::kUnbounded)),
      workers_(std::make_unique<WorkerPool>("tessera-work", config_.decode_threads,
                                            static_cast<size_t>(config_.max_queue))),
      inference_(&context_, &requests_),
      tokenizer_(&context_),
      control_(&context_, &requests_, device_) {
  context_.config = &config_;
  context_.runtime = &runtime_;
  context_.lifecycle = &lifecycle_;
  context_.access = &access_;
  context_.metrics = &metrics_;
  context_.log = log_;
  context_.workers = workers_.get();
  context_.senders = senders_.get();
}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const ServerConfig& config, Logger* log,
                                                      const Loader& loader, std::string device) {
  std::shared_ptr<const TokenTable> tokens;
  if (!config.token_file.empty()) {
    auto read = TokenTable::Read(config.token_file);
    if (!read.ok()) return WithFlag("token_file", read.status());
    tokens = *std::move(read);
  }
  std::unique_ptr<Daemon> daemon(new Daemon(config, log, std::move(device), std::move(tokens)));
  RETURN_IF_ERROR(daemon->Listen());
  RETURN_IF_ERROR(daemon->Load(loader));
  return daemon;
}

absl::Status Daemon::Listen() {
  SetUpGrpc(config_.reflection, log_);
  if (!config_.image_url_hosts.empty()) {
    ASSIGN_OR_RETURN(images_, ImageFetcher::Make(config_, &metrics_, log_));
    context_.images = images_.get();
  }
  if (!config_.tls.cert.empty()) {
    auto tls = TlsSource::Open(config_.tls);
    if (!tls.ok()) return WithFlag("tls_cert", tls.status());
    tls_ = *std::move(tls);
  }
  if (!IsOff(config_.metrics_listen)) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(config_.metrics_listen));
    if (absl::Status free = CheckAddressFree(address); !free.ok()) {
      return WithFlag("metrics_listen", free);
    }
    auto exporter = MetricsExporter::Start(config_.metrics_listen, &metrics_);
    if (!exporter.ok()) return WithFlag("metrics_listen", exporter.status());
    exporter_ = *std::move(exporter);
    metrics_address_ = absl::StrCat(address.host, ":", exporter_->port());
  }
  auto server = Listener::Start(config_.listen, config_, {&inference_, &tokenizer_}, tls_.get());
  if (!server.ok()) return WithFlag("listen", server.status());
  public_ = *std::move(server);
  lifecycle_.Attach(public_->health());
  if (!IsOff(config_.admin_listen)) {
    auto admin = Listener::Start(config_.admin_listen, config_, {&control_}, tls_.get());
    if (!admin.ok()) return WithFlag("admin_listen", admin.status());
    admin_ = *std::move(admin);
    admin_address_ = admin_->address();
    lifecycle_.Attach(admin_->health());
  }
  if (!IsOff(config_.http_listen)) {
    auto gateway = Gateway::Start(config_.http_listen, &context_, &requests_, tls_.get());
    if (!gateway.ok()) return WithFlag("http_listen", gateway.status());
    gateway_ = *std::move(gateway);
  }
  log_->Write(LogLevel::kInfo, "listening",
              {{"tls", tls_ == nullptr                    ? "off"
                       : tls_->needs_client_certificate() ? "clients need a certificate"
                                                          : "on"},
               {"tokens", access_.on() ? "on" : "off"},
               {"listen", listen_address()},
               {"http_listen", http_address()},
               {"admin_listen", admin_address_},
               {"metrics_listen", metrics_address_}});
  return absl::OkStatus();
}

absl::Status Daemon::Load(const Loader& loader) {
  const absl::Time start = SteadyNow();
  RETURN_IF_ERROR(loader(config_, &metrics_, &runtime_));
  runtime_.loaded_unix_seconds = absl::ToUnixSeconds(absl::Now());
  context_.rules.model = &runtime_.model;
  context_.rules.max_images = config_.max_images;
  context_.rules.max_text_bytes = config_.max_text_bytes;
  context_.rules.allowed_policies = config_.kv_policy_allow;
  context_.rules.allow_explain = config_.allow_explain;
  if (images_ != nullptr) context_.rules.image_urls = &images_->rules();
  ASSIGN_OR_RETURN(context_.rules.default_policy, ParsePolicy(config_.kv_policy));
  metrics_.SetSource([this] {
    MetricsSnapshot now;
    now.load = runtime_.engine->Load();
    now.rpcs_in_flight = requests_.size();
    now.heartbeat_age_seconds = absl::ToDoubleSeconds(runtime_.engine->HeartbeatAge());
    now.ready = lifecycle_.state() == Lifecycle::State::kServing;
    if (tls_ != nullptr) now.certificate_expires = tls_->current()->not_after;
    return now;
  });
  lifecycle_.Serve();
  if (absl::Status told = sd_notify_.Send("READY=1\nSTATUS=serving"); !told.ok()) {
    log_->Write(LogLevel::kWarning, "cannot notify the service manager",
                {{"error", told.message()}});
  }
  watcher_ = std::thread([this] { Watch(); });
  log_->Write(LogLevel::kInfo, "serving",
              {{"model", runtime_.model.name},
               {"device", device_},
               {"context_tokens", runtime_.context_tokens},
               {"kv_cache_bytes", runtime_.engine->Load().kv_bytes_total},
               {"seconds", absl::ToDoubleSeconds(SteadyNow() - start)}});
  return absl::OkStatus();
}

void Daemon::Watch() {
  absl::Time next_alive = SteadyNow() + sd_notify_.watchdog_interval();
  absl::Time next_reload = SteadyNow() + kReloadInterval;
  while (watching_.load()) {
    const absl::Duration age = runtime_.engine->HeartbeatAge();
    const bool live = age <= config_.liveness_timeout;
    if (live != lifecycle_.live()) {
      log_->Write(live ? LogLevel::kInfo : LogLevel::kError,
                  live ? "the engine is live again" : "the engine is not live",
                  {{"heartbeat_age_seconds", absl::ToDoubleSeconds(age)}});
      lifecycle_.SetLive(live);
    }
    if (live && SteadyNow() >= next_alive) {
      // A failed send is repeated in the next turn.
      if (sd_notify_.Send("WATCHDOG=1").ok())
        next_alive = SteadyNow() + sd_notify_.watchdog_interval();
    }
    if (SteadyNow() >= next_reload) {
      Reload();
      next_reload = SteadyNow() + kReloadInterval;
    }
    const int given_up = requests_.CancelStalled(SteadyNow(), config_.stall_timeout);
    if (given_up > 0) {
      log_->Write(LogLevel::kWarning, "cancelled clients that stopped reading",
                  {{"calls", given_up}});
    }
    absl::SleepFor(kWatchTurn);
  }
}

void Daemon::Reload() {
  const auto tell = [this](const char* what, const absl::StatusOr<bool>& changed) {
    if (changed.ok() && !*changed) return;
    metrics_.CountReload(what, changed.ok());
    if (changed.ok()) {
      log_->Write(LogLevel::kInfo, "a changed file is in use", {{"file", what}});
    } else {
      log_->Write(LogLevel::kError, "a changed file does not work; the previous one stays in use",
                  {{"file", what}, {"error", changed.status().message()}});
    }
  };
  if (tls_ != nullptr) tell("tls", tls_->Refresh());
  if (access_.on()) tell("tokens", access_.Refresh());
}

void Daemon::Drain(const std::function<bool(absl::Duration)>& hurry) {
  if (std::exchange(drained_, true)) return;
  const absl::Time start = SteadyNow();
  lifecycle_.BeginDrain(start);
  sd_notify_.Send("STOPPING=1\nSTATUS=draining").IgnoreError();
  log_->Write(LogLevel::kInfo, "draining", {{"calls", requests_.size()}});
  bool hurried = false;
  const auto wait_for = [&](absl::Time until, const std::function<bool()>& done) {
    while (!hurried && !done() && SteadyNow() < until) {
      hurried = hurry(std::min(kWatchTurn, until - SteadyNow()));
    }
  };
  wait_for(lifecycle_.refuse_time(), [] { return false; });
  lifecycle_.RefuseNow();
  wait_for(SteadyNow() + config_.drain_timeout, [this] { return requests_.size() == 0; });
  const int left = requests_.size();
  if (left > 0) {
    requests_.EndAll(RetryLater(absl::StatusCode::kUnavailable, "the server is stopping",
                                reason::kDraining, absl::Seconds(1)));
    requests_.WaitUntilEmpty(SteadyNow() + kShutdownGrace);
  }

  // Shutdown waits for connections too, hence the short grace; then it cancels what is left.
  const absl::Time deadline = SteadyNow() + kShutdownGrace;
  lifecycle_.Stop();
  lifecycle_.DetachAll();
  if (gateway_ != nullptr) gateway_->Stop(deadline);
  if (public_ != nullptr) public_->Shutdown(deadline);
  if (admin_ != nullptr) admin_->Shutdown(deadline);
  watching_ = false;
  if (watcher_.joinable()) watcher_.join();
  // Fetcher and workers pass work to each other: a stopped fetcher still rejects what workers
  // bring.
  if (images_ != nullptr) images_->Stop();
  workers_ = nullptr;
  metrics_.SetSource(nullptr);
  if (runtime_.engine != nullptr) StopEngine();
  senders_ = nullptr;
  exporter_ = nullptr;
  log_->Write(
      LogLevel::kInfo, "stopped",
      {{"calls_ended_early", left}, {"seconds", absl::ToDoubleSeconds(SteadyNow() - start)}});
}

void Daemon::StopEngine() {
  // A hung device would block its thread, and so this one, for ever.
  const absl::Time patience = SteadyNow() + kShutdownGrace;
  std::atomic<bool> stopped{false};
  std::thread stopping([&] {
    runtime_.engine->Stop();
    stopped = true;
  });
  while (!stopped) {
    if (SteadyNow() > patience && runtime_.engine->HeartbeatAge() > config_.liveness_timeout) {
      EndProcess("the engine is not live and cannot be stopped");
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  stopping.join();
}

void Daemon::Abandon() {
  lifecycle_.Stop();
  requests_.EndAll(RetryLater(absl::StatusCode::kUnavailable, "the server has failed and must end",
                              reason::kServerFailed, absl::Seconds(1)));
  requests_.WaitUntilEmpty(SteadyNow() + kShutdownGrace);
  absl::SleepFor(kSendGrace);
}

Daemon::~Daemon() {
  Drain([](absl::Duration) { return true; });
  runtime_.engine = nullptr;  // before the metrics that observe it
  ForgetGrpcLog(log_);
}

}  // namespace tessera
