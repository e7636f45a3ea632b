// The values of all metrics: an engine observer that counts into prometheus-cpp.
//
// The constructor creates every series of metrics_table.h. A scrape reads the engine's gauges; no
// one pushes them. Lifetime: outlives the engine, whose observer it is, and the exporter.
// Threads: safe. Errors: MetricsExporter::Start says why it cannot listen.
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

// The values that a scrape reads from the rest of the daemon.
struct MetricsSnapshot {
  EngineLoad load;
  int rpcs_in_flight = 0;
  double heartbeat_age_seconds = 0;
  bool ready = false;
  absl::Time certificate_expires = absl::InfinitePast();  // no certificate
};

class Metrics final : public Observer, public AccessCounters, public FetchCounters {
 public:
  // `tenants`: the names that get a series of their own.
  Metrics(const std::string& version, const std::string& model, const std::string& device,
          const std::vector<std::string>& tenants = {});
  ~Metrics() override;

  // Sets the function that every scrape calls; null: gauges keep their values.
  void SetSource(std::function<MetricsSnapshot()> source);

  // Counts an RPC that ended. `code`: the number of its gRPC status code.
  void CountRpc(const std::string& method, int code);
  // Counts an answered HTTP request. `route` is one of HttpRoutes.
  void CountHttp(const std::string& route, int http_status);
  // Counts a changed file that was read again. `what` is one of ReloadedFiles.
  void CountReload(const std::string& what, bool ok);
  void ObserveImageDecode(double seconds);

  // --- AccessCounters, FetchCounters
  void CountTenant(const std::string& tenant) override;
  void CountRefusal(const std::string& reason) override;
  void CountImageFetch(FetchOutcome outcome, double seconds) override;

  // Returns the value of a counter or gauge. `labels`: in the table's order.
  double Value(Metric metric, const std::vector<std::string>& labels = {}) const;
  // Returns the text of a scrape.
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
  // Listens on `address`, host:port. FAILED_PRECONDITION with the address.
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
