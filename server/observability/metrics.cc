// Longer than 300 lines because it counts every report of the engine's observer.
#include "server/observability/metrics.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "base/mutex.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/observability/http_names.h"
#include "server/observability/process_stats.h"
#include "server/observability/rpc_names.h"

namespace tessera {
namespace {

// One series; exactly one pointer is set. Owned by the registry.
struct Series {
  prometheus::Counter* counter = nullptr;
  prometheus::Gauge* gauge = nullptr;
  prometheus::Histogram* histogram = nullptr;
};

// Clients choose parameters, so a label value has none of them.
// "window(sinks=4)+rtn" -> "window+rtn": a value of the table.
std::string PolicyLabel(const Policy& policy) { return absl::StrJoin(policy.names(), "+"); }

const char* FinishedLabel(const Event& last) {
  switch (last.status.code()) {
    case absl::StatusCode::kOk:
      return last.reason == FinishReason::kLength ? "length" : "stop";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    default:
      return "error";
  }
}

}  // namespace

class Metrics::Impl final : public prometheus::Collectable {
 public:
  explicit Impl(std::vector<MetricSpec> table) : table_(std::move(table)) {
    TESSERA_CHECK(table_.size() == static_cast<size_t>(Metric::kCount));
    series_.resize(table_.size());
    for (size_t i = 0; i < table_.size(); ++i) {
      TESSERA_CHECK(table_[i].metric == static_cast<Metric>(i));
      CreateSeries(table_[i], &series_[i]);
    }
    At(Metric::kBuildInfo, Only(Metric::kBuildInfo)).gauge->Set(1);
    At(Metric::kStartTime).gauge->SetToCurrentTime();
  }

  void SetSource(std::function<MetricsSnapshot()> source) {
    MutexLock lock(mutex_);
    source_ = std::move(source);
  }

  const Series& At(Metric metric, const std::vector<std::string>& labels = {}) const {
    const MetricSpec& spec = table_[static_cast<size_t>(metric)];
    TESSERA_CHECK(labels.size() == spec.labels.size());
    size_t index = 0;
    for (size_t i = 0; i < labels.size(); ++i) {
      const std::vector<std::string>& values = spec.labels[i].values;
      auto found = std::find(values.begin(), values.end(), labels[i]);
      TESSERA_CHECK(found != values.end());
      index = index * values.size() + static_cast<size_t>(found - values.begin());
    }
    return series_[static_cast<size_t>(metric)][index];
  }
  // The label of `tenant`: its own, or the last one, of all that have none.
  std::string KnownTenant(const std::string& tenant) const {
    const auto& known = table_[static_cast<size_t>(Metric::kTenantRequests)].labels.front().values;
    const auto found = std::find(known.begin(), known.end(), tenant);
    return found == known.end() ? known.back() : *found;
  }
  // Labels that have one value each.
  std::vector<std::string> Only(Metric metric) const {
    std::vector<std::string> labels;
    for (const MetricLabel& l : table_[static_cast<size_t>(metric)].labels) {
      labels.push_back(l.values.front());
    }
    return labels;
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    Refresh();
    return registry_.Collect();
  }

 private:
  void CreateSeries(const MetricSpec& spec, std::vector<Series>* out) {
    std::vector<prometheus::Labels> all = {{}};
    for (const MetricLabel& label : spec.labels) {
      std::vector<prometheus::Labels> next;
      for (const prometheus::Labels& base : all) {
        for (const std::string& value : label.values) {
          next.push_back(base);
          next.back()[label.name] = value;
        }
      }
      all = std::move(next);
    }
    for (const prometheus::Labels& labels : all) {
      Series series;
      if (spec.kind == MetricKind::kCounter) {
        series.counter =
            &prometheus::BuildCounter().Name(spec.name).Help(spec.help).Register(registry_).Add(
                labels);
      } else if (spec.kind == MetricKind::kGauge) {
        series.gauge =
            &prometheus::BuildGauge().Name(spec.name).Help(spec.help).Register(registry_).Add(
                labels);
      } else {
        series.histogram =
            &prometheus::BuildHistogram().Name(spec.name).Help(spec.help).Register(registry_).Add(
                labels, BucketEdges(spec.buckets));
      }
      out->push_back(series);
    }
  }

  void Refresh() const {
    MutexLock lock(mutex_);
    At(Metric::kResidentMemory).gauge->Set(ProcessResidentBytes());
    At(Metric::kOpenFiles).gauge->Set(ProcessOpenFiles());
    prometheus::Counter& cpu = *At(Metric::kCpuSeconds).counter;
    cpu.Increment(std::max(0.0, ProcessCpuSeconds() - cpu.Value()));
    if (source_ == nullptr) return;
    const MetricsSnapshot now = source_();
    const auto set = [this](Metric m, double v) { At(m).gauge->Set(v); };
    const auto kv = [this](const char* state, int64_t v) {
      At(Metric::kKvBytes, {state}).gauge->Set(static_cast<double>(v));
    };
    const EngineLoad& load = now.load;
    set(Metric::kRequestsRunning, load.running);
    set(Metric::kRequestsWaiting, load.waiting);
    set(Metric::kRpcsInFlight, now.rpcs_in_flight);
    kv("used", load.kv_bytes_used);
    kv("reclaimable", load.kv_bytes_reclaimable);
    kv("stranded", load.kv_bytes_stranded);
    kv("free", load.kv_bytes_total - load.kv_bytes_used - load.kv_bytes_reclaimable -
                   load.kv_bytes_stranded);
    kv("total", load.kv_bytes_total);
    set(Metric::kKvUsage, load.kv_bytes_total == 0 ? 0.0
                                                   : static_cast<double>(load.kv_bytes_used) /
                                                         static_cast<double>(load.kv_bytes_total));
    for (int i = 0; i < kNumFormats; ++i) {
      At(Metric::kKvPages, {FormatName(static_cast<Format>(i))})
          .gauge->Set(static_cast<double>(load.pages_by_format[i]));
      At(Metric::kKvFormatBytes, {FormatName(static_cast<Format>(i))})
          .gauge->Set(static_cast<double>(load.bytes_by_format[i]));
    }
    set(Metric::kPrefixBlocks, static_cast<double>(load.prefix_blocks));
    set(Metric::kImageCacheBytes, static_cast<double>(load.image_cache_bytes));
    set(Metric::kImageCacheEntries, static_cast<double>(load.image_cache_entries));
    set(Metric::kHeartbeatAge, now.heartbeat_age_seconds);
    set(Metric::kReady, now.ready ? 1 : 0);
    if (now.certificate_expires != absl::InfinitePast()) {
      set(Metric::kCertificateExpires, absl::ToUnixSeconds(now.certificate_expires));
    }
  }

  const std::vector<MetricSpec> table_;
  prometheus::Registry registry_{prometheus::Registry::InsertBehavior::Merge};
  std::vector<std::vector<Series>> series_;  // by metric, then by label values, last one fastest
  mutable Mutex mutex_;
  std::function<MetricsSnapshot()> source_ TESSERA_GUARDED_BY(mutex_);
};

Metrics::Metrics(const std::string& version, const std::string& model, const std::string& device,
                 const std::vector<std::string>& tenants)
    : impl_(std::make_shared<Impl>(MetricsTable(version, model, device, tenants))) {}
Metrics::~Metrics() = default;

void Metrics::SetSource(std::function<MetricsSnapshot()> source) {
  impl_->SetSource(std::move(source));
}

void Metrics::CountRpc(const std::string& method, int code) {
  const bool known = code >= 0 && code < static_cast<int>(RpcCodes().size());
  impl_->At(Metric::kRequests, {method, RpcCodes()[known ? code : 2 /* UNKNOWN */]})
      .counter->Increment();
}

void Metrics::CountHttp(const std::string& route, int http_status) {
  const std::vector<std::string>& known = HttpStatuses();
  std::string code = std::to_string(http_status);
  if (std::find(known.begin(), known.end(), code) == known.end()) code = known.back();
  impl_->At(Metric::kHttpRequests, {route, code}).counter->Increment();
}

void Metrics::CountTenant(const std::string& tenant) {
  impl_->At(Metric::kTenantRequests, {impl_->KnownTenant(tenant)}).counter->Increment();
}

void Metrics::CountRefusal(const std::string& reason) {
  impl_->At(Metric::kRefusals, {reason}).counter->Increment();
}

void Metrics::CountReload(const std::string& what, bool ok) {
  impl_->At(Metric::kReloads, {what, ok ? "ok" : "failed"}).counter->Increment();
}

void Metrics::ObserveImageDecode(double seconds) {
  impl_->At(Metric::kImageDecodeSeconds).histogram->Observe(seconds);
}

void Metrics::CountImageFetch(FetchOutcome outcome, double seconds) {
  impl_->At(Metric::kImageFetches, {FetchOutcomeName(outcome)}).counter->Increment();
  impl_->At(Metric::kImageFetchSeconds).histogram->Observe(seconds);
}

double Metrics::Value(Metric metric, const std::vector<std::string>& labels) const {
  const Series& series = impl_->At(metric, labels);
  TESSERA_CHECK(series.histogram == nullptr);
  return series.counter != nullptr ? series.counter->Value() : series.gauge->Value();
}

std::string Metrics::Scrape() { return prometheus::TextSerializer().Serialize(impl_->Collect()); }

void Metrics::OnStep(const StepReport& step, const EngineLoad&) {
  const auto part = [this](const char* name, double seconds) {
    impl_->At(Metric::kStepSeconds, {name}).histogram->Observe(seconds);
  };
  part("plan", step.plan_seconds);
  if (step.vision_seconds > 0) part("vision", step.vision_seconds);
  part("batch", step.batch_seconds);
  part("forward", step.forward_seconds);
  part("compress", step.compress_seconds);
  part("sample", step.sample_seconds);
  impl_->At(Metric::kStepTokens, {"prefill"}).counter->Increment(step.prefill_tokens);
  impl_->At(Metric::kStepTokens, {"decode"}).counter->Increment(step.decode_tokens);
  impl_->At(Metric::kDeviceGapSeconds).counter->Increment(step.gap_seconds);
  impl_->At(Metric::kKvHeldSlopes).counter->Increment(static_cast<double>(step.clamped_slopes));
}

void Metrics::OnFirstToken(const Request& request, double seconds) {
  impl_->At(Metric::kFirstTokenSeconds).histogram->Observe(seconds);
  const double prompt = static_cast<double>(request.prompt.ids.size());
  impl_->At(Metric::kPromptTokensPerRequest).histogram->Observe(prompt);
  impl_->At(Metric::kPromptTokens).counter->Increment(prompt);
  impl_->At(Metric::kImageTokens).counter->Increment(request.prompt.image_tokens);
  impl_->At(Metric::kGenerationTokens).counter->Increment();
}

void Metrics::OnInterToken(double seconds) {
  impl_->At(Metric::kInterTokenSeconds).histogram->Observe(seconds);
  impl_->At(Metric::kGenerationTokens).counter->Increment();
}

void Metrics::OnPrefixLookup(int prompt_tokens, int hit_tokens) {
  impl_->At(Metric::kPrefixLookupTokens).counter->Increment(prompt_tokens);
  impl_->At(Metric::kPrefixHitTokens).counter->Increment(hit_tokens);
}

void Metrics::OnImageLookup(bool hit) {
  impl_->At(Metric::kImageLookups).counter->Increment();
  if (hit) impl_->At(Metric::kImageHits).counter->Increment();
}

void Metrics::OnImageEncoded(int images, double seconds) {
  impl_->At(Metric::kVisionEncodeSeconds).histogram->Observe(seconds);
  impl_->At(Metric::kImages).counter->Increment(images);
}

void Metrics::OnCompressed(const CompressReport& report) {
  impl_->At(Metric::kKvCommits).counter->Increment(report.commits);
  impl_->At(Metric::kKvExitedTokens).counter->Increment(report.exited_tokens);
  if (report.commits > 0) {
    impl_->At(Metric::kKvCommitSeconds).histogram->Observe(report.commit_seconds);
  }
  impl_->At(Metric::kKvQuantizeSeconds).histogram->Observe(report.move_seconds);
}

void Metrics::OnPreempted(const Request&) { impl_->At(Metric::kPreemptions).counter->Increment(); }

void Metrics::OnFinished(const Request& request, const Event& last) {
  impl_->At(Metric::kRequestsFinished, {FinishedLabel(last)}).counter->Increment();
  impl_->At(Metric::kRequestsByPolicy, {PolicyLabel(*request.policy)}).counter->Increment();
  if (last.status.code() == absl::StatusCode::kCancelled) {
    impl_->At(Metric::kCancellations).counter->Increment();
  }
  impl_->At(Metric::kEvictedTokens, {"text"}).counter->Increment(last.usage.evicted_text);
  impl_->At(Metric::kEvictedTokens, {"vision"}).counter->Increment(last.usage.evicted_vision);
  if (!last.status.ok()) return;
  const auto observe = [this](Metric m, double v) { impl_->At(m).histogram->Observe(v); };
  observe(Metric::kRequestSeconds, last.usage.total_seconds);
  observe(Metric::kQueueSeconds, last.usage.queue_seconds);
  observe(Metric::kPrefillSeconds, last.usage.prefill_seconds);
  observe(Metric::kDecodeSeconds, last.usage.decode_seconds);
  observe(Metric::kGenerationTokensPerRequest, last.usage.output_tokens);
  observe(Metric::kKvMeanBits, last.usage.kv_mean_bits);
}

class MetricsExporter::Impl {
 public:
  Impl(const std::string& address, std::shared_ptr<Metrics::Impl> metrics)
      : metrics_(std::move(metrics)), exposer_(address, /*num_threads=*/2) {
    exposer_.RegisterCollectable(metrics_);
  }
  int port() const { return exposer_.GetListeningPorts().front(); }

 private:
  std::shared_ptr<Metrics::Impl> metrics_;
  prometheus::Exposer exposer_;
};

absl::StatusOr<std::unique_ptr<MetricsExporter>> MetricsExporter::Start(const std::string& address,
                                                                        Metrics* metrics) {
  try {
    return std::unique_ptr<MetricsExporter>(
        new MetricsExporter(std::make_unique<Impl>(address, metrics->impl_)));
  } catch (const std::exception& e) {  // the library's way to say that it cannot bind
    return absl::FailedPreconditionError(
        absl::StrCat("cannot serve metrics on ", address, ": ", e.what()));
  }
}

MetricsExporter::MetricsExporter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsExporter::~MetricsExporter() = default;
int MetricsExporter::port() const { return impl_->port(); }

}  // namespace tessera
