// tesserad as an object: builds its parts, and stops them in a safe order.
//
//   Start   tokens, certificates -> metrics -> listeners (STARTING) -> model, engine -> SERVING
//   Drain   not ready -> wait drain_delay -> refuse work -> wait for running calls, at most
//           drain_timeout -> end the rest with UNAVAILABLE -> listeners -> engine -> metrics
//
// Each step of the drain is bounded, and `hurry` cuts its waits short.
// Threads: one thread owns the daemon. Errors: one line that names the flag, file or address.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/worker_pool.h"
#include "server/access/access.h"
#include "server/access/tls.h"
#include "server/grpc/control_service.h"
#include "server/grpc/inference_service.h"
#include "server/grpc/listener.h"
#include "server/grpc/tokenizer_service.h"
#include "server/http/gateway.h"
#include "server/images/image_fetcher.h"
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "server/process/lifecycle.h"
#include "server/process/sd_notify.h"
#include "server/request/request_registry.h"
#include "server/request/runtime.h"
#include "server/request/service_context.h"

namespace tessera {

class Daemon {
 public:
  // Fills a Runtime. The observer must observe its engine.
  using Loader = std::function<absl::Status(const ServerConfig&, Observer*, Runtime*)>;

  // Listens, loads the model with `loader`, and serves. `log` must outlive the daemon.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const ServerConfig& config, Logger* log,
                                                       const Loader& loader, std::string device);
  // Ends every call with an error, because the process is about to end. Bounded. Any thread may
  // call it, also during Drain.
  void Abandon();
  ~Daemon();  // drains without waits, unless drained already

  // Drains as above, and returns when everything has ended. `hurry(timeout)` waits up to `timeout`
  // and returns true if the remaining waits are to be skipped.
  void Drain(const std::function<bool(absl::Duration)>& hurry);

  const std::string& listen_address() const { return public_->address(); }
  std::string http_address() const { return gateway_ == nullptr ? "" : gateway_->address(); }
  const std::string& admin_address() const { return admin_address_; }      // "" if off
  const std::string& metrics_address() const { return metrics_address_; }  // "" if off
  Metrics& metrics() { return metrics_; }
  Lifecycle& lifecycle() { return lifecycle_; }
  WorkerPool& workers() { return *workers_; }  // until Drain

 private:
  Daemon(const ServerConfig& config, Logger* log, std::string device,
         std::shared_ptr<const TokenTable> tokens);
  absl::Status Listen();
  absl::Status Load(const Loader& loader);
  void Watch();       // the housekeeping thread
  void Reload();      // files that have changed
  void StopEngine();  // or ends the process if it hangs

  const ServerConfig config_;
  const std::string device_;
  Logger* const log_;
  const SdNotify sd_notify_ = SdNotify::FromEnvironment();
  std::string admin_address_, metrics_address_;

  // Destroyed in reverse order: a part stands above those that point to it.
  Metrics metrics_;
  AccessControl access_;
  std::unique_ptr<TlsSource> tls_;  // null: plain text
  std::unique_ptr<MetricsExporter> exporter_;
  Lifecycle lifecycle_;
  RequestRegistry requests_;
  Runtime runtime_;
  std::unique_ptr<WorkerPool> senders_;
  std::unique_ptr<ImageFetcher> images_;  // null: no image is fetched
  std::unique_ptr<WorkerPool> workers_;
  ServiceContext context_;
  InferenceService inference_;
  TokenizerService tokenizer_;
  ControlService control_;
  std::unique_ptr<Listener> public_;
  std::unique_ptr<Listener> admin_;
  std::unique_ptr<Gateway> gateway_;
  std::atomic<bool> watching_{true};
  std::thread watcher_;
  bool drained_ = false;
};

}  // namespace tessera
