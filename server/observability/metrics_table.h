// Every metric tesserad exports: name, kind, help, labels and buckets in one table.
//
// metrics.cc creates all series from it at start (with zero values, so that rates and alerts work
// from the first scrape); documentation, alert rules and dashboards are tested against it. Names
// have base units; label values are bounded, never a user's, prompt's or request's.
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

// Why a call of --token_file's tenants, or of nobody's, is refused.
const std::vector<std::string>& RefusalReasons();
// What CountReload counts: "tls", "tokens".
const std::vector<std::string>& ReloadedFiles();

// Row i describes Metric(i). Label values that depend on the build, the model (build_info's) or the
// token file come as arguments.
std::vector<MetricSpec> MetricsTable(const std::string& version, const std::string& model,
                                     const std::string& device,
                                     const std::vector<std::string>& tenants = {});

const std::vector<double>& BucketEdges(Buckets buckets);

}  // namespace tessera
