// The numbers behind /metrics: an engine observer that counts into prometheus-cpp.
//
// Series are created once from metrics_table.h. Gauges of the engine are read when they are
// scraped, not pushed. Lifetime: must outlive the engine (as its Observer) and the exporter.
// Threads: safe. Errors: MetricsExporter::Start says why the address cannot be had.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request/observer.h"
#include "server/observability/counters.h"
#include "server/observability/metrics_table.h"

namespace tessera {

// What a scrape reads from the rest of the daemon.
struct MetricsSnapshot {
  EngineLoad load;
  int rpcs_in_flight = 0;
  double heartbeat_age_seconds = 0;
  bool ready = false;
  absl::Time certificate_expires = absl::InfinitePast();  // no certificate
};

class Metrics final : public Observer, public AccessCounters, public FetchCounters {
 public:
  // `tenants`: those that have a series of their own.
  Metrics(const std::string& version, const std::string& model, const std::string& device,
          const std::vector<std::string>& tenants = {});
  ~Metrics() override;

  // Called on every scrape, until replaced; null: gauges keep their values.
  void SetSource(std::function<MetricsSnapshot()> source);

  // An RPC ended. `code` is a gRPC status code's number.
  void CountRpc(const std::string& method, int code);
  // An HTTP request was answered. `route` is one of HttpRoutes.
  void CountHttp(const std::string& route, int http_status);
  // A file that changed while the daemon runs was read again. `what` is one of ReloadedFiles.
  void CountReload(const std::string& what, bool ok);
  void ObserveImageDecode(double seconds);

  // --- AccessCounters, FetchCounters
  void CountTenant(const std::string& tenant) override;
  void CountRefusal(const std::string& reason) override;
  void CountImageFetch(FetchOutcome outcome, double seconds) override;

  // Of a counter or gauge, for GetCacheStats and tests; `labels` in the table's order.
  double Value(Metric metric, const std::vector<std::string>& labels = {}) const;
  // The text a scrape returns.
  std::string Scrape();

  // --- Observer, on the engine's thread
  void OnStep(const StepReport& step, const EngineLoad& load) override;
  void OnFirstToken(const Request& request, double seconds) override;
  void OnInterToken(double seconds) override;
  void OnPrefixLookup(int prompt_tokens, int hit_tokens) override;
  void OnImageLookup(bool hit) override;
  void OnImageEncoded(int images, double seconds) override;
  void OnCompressed(const CompressReport& report) override;
  void OnPreempted(const Request& request) override;
  void OnFinished(const Request& request, const Event& last) override;

 private:
  friend class MetricsExporter;
  class Impl;
  std::shared_ptr<Impl> impl_;
};

// Serves GET /metrics until destroyed (which takes about a second: stop it last).
class MetricsExporter {
 public:
  // `address`: host:port. FAILED_PRECONDITION / ALREADY_EXISTS naming it.
  static absl::StatusOr<std::unique_ptr<MetricsExporter>> Start(const std::string& address,
                                                                Metrics* metrics);
  ~MetricsExporter();
  int port() const;

 private:
  class Impl;
  explicit MetricsExporter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
