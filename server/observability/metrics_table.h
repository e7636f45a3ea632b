// Every metric that tesserad exports: name, kind, help, labels and buckets, in one table.
//
// metrics.cc creates all series from it at start, with zero values, so that rates and alerts work
// from the first scrape. Tests hold documentation, alert rules and dashboards against it. Names
// have base units. Label values are bounded: none comes from a user, prompt or request.
#pragma once

#include <string>
#include <vector>

namespace tessera {

enum class MetricKind { kCounter, kGauge, kHistogram };
enum class Buckets { kNone, kFirstToken, kInterToken, kRequest, kStage, kStep, kTokens, kBits };

// One per row of the table; the order of the rows.
enum class Metric {
  kRequests,
  kHttpRequests,
  kRequestsFinished,
  kRequestsByPolicy,
  kCancellations,
  kTenantRequests,
  kRefusals,
  kPreemptions,
  kRequestsRunning,
  kRequestsWaiting,
  kRpcsInFlight,
  kFirstTokenSeconds,
  kInterTokenSeconds,
  kRequestSeconds,
  kQueueSeconds,
  kPrefillSeconds,
  kDecodeSeconds,
  kImageFetchSeconds,
  kImageFetches,
  kImageDecodeSeconds,
  kVisionEncodeSeconds,
  kPromptTokensPerRequest,
  kGenerationTokensPerRequest,
  kPromptTokens,
  kImageTokens,
  kGenerationTokens,
  kImages,
  kStepSeconds,
  kStepTokens,
  kDeviceGapSeconds,
  kKvBytes,
  kKvUsage,
  kKvPages,
  kKvFormatBytes,
  kKvMeanBits,
  kKvCommits,
  kKvCommitSeconds,
  kKvQuantizeSeconds,
  kKvExitedTokens,
  kKvHeldSlopes,
  kEvictedTokens,
  kPrefixBlocks,
  kPrefixLookupTokens,
  kPrefixHitTokens,
  kImageLookups,
  kImageHits,
  kImageCacheBytes,
  kImageCacheEntries,
  kHeartbeatAge,
  kReady,
  kReloads,
  kCertificateExpires,
  kStartTime,
  kResidentMemory,
  kCpuSeconds,
  kOpenFiles,
  kBuildInfo,
  kCount,
};

struct MetricLabel {
  std::string name;
  std::vector<std::string> values;  // all of them; series are their cross product
};

struct MetricSpec {
  Metric metric;
  std::string name;
  MetricKind kind;
  std::string help;
  std::vector<MetricLabel> labels;
  Buckets buckets = Buckets::kNone;
};

// Why AccessControl or a tenant's limits reject a call.
const std::vector<std::string>& RefusalReasons();
// The files that CountReload counts: "tls", "tokens".
const std::vector<std::string>& ReloadedFiles();

// Returns the table; row i describes Metric(i). The arguments are label values that depend on the
// build, the model or the token file.
std::vector<MetricSpec> MetricsTable(const std::string& version, const std::string& model,
                                     const std::string& device,
                                     const std::vector<std::string>& tenants = {});

const std::vector<double>& BucketEdges(Buckets buckets);

}  // namespace tessera
