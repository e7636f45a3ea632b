// Longer than other sources because it is one table.
#include "server/observability/metrics_table.h"

#include <algorithm>

#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "kernels/layout/page_layout.h"
#include "server/observability/fetch_outcome.h"
#include "server/observability/http_names.h"
#include "server/observability/rpc_names.h"

namespace tessera {
namespace {

constexpr const char* kOtherTenants = "other";

// Single policies and compositions, without their parameters.
std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  for (const PolicyInfo& info : PolicyTable()) names.push_back(info.name);
  for (const PolicyInfo& selector : PolicyTable()) {
    if (selector.role != PolicyRole::kSelector) continue;
    for (const PolicyInfo& store : PolicyTable()) {
      if (store.role == PolicyRole::kStore) names.push_back(selector.name + "+" + store.name);
    }
  }
  return names;
}

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (int i = 0; i < kNumFormats; ++i) names.push_back(FormatName(static_cast<Format>(i)));
  return names;
}

// Returns the names of the token file at start, and one for all that are added later.
std::vector<std::string> TenantLabels(std::vector<std::string> tenants) {
  if (std::find(tenants.begin(), tenants.end(), kOtherTenants) == tenants.end()) {
    tenants.push_back(kOtherTenants);
  }
  return tenants;
}

}  // namespace

// One table, so it exceeds the limit of 60 lines.
// NOLINTNEXTLINE(readability-function-size)
std::vector<MetricSpec> MetricsTable(const std::string& version, const std::string& model,
                                     const std::string& device,
                                     const std::vector<std::string>& tenants) {
  using K = MetricKind;
  using B = Buckets;
  return {
      {Metric::kRequests,
       "tessera_requests_total",
       K::kCounter,
       "RPCs that ended, by method and gRPC status code.",
       {{"method", RpcMethods()}, {"code", RpcCodes()}}},
      {Metric::kHttpRequests,
       "tessera_http_requests_total",
       K::kCounter,
       "HTTP requests that were answered, by route and status; 499: the client went away.",
       {{"route", HttpRoutes()}, {"code", HttpStatuses()}}},
      {Metric::kRequestsFinished,
       "tessera_requests_finished_total",
       K::kCounter,
       "Admitted generation requests that ended, by reason.",
       {{"reason", {"stop", "length", "cancelled", "deadline", "unavailable", "error"}}}},
      {Metric::kRequestsByPolicy,
       "tessera_requests_by_policy_total",
       K::kCounter,
       "Admitted generation requests that ended, by the KV policy that they were granted.",
       {{"policy", PolicyNames()}}},
      {Metric::kCancellations,
       "tessera_cancellations_total",
       K::kCounter,
       "Admitted requests that were cancelled before they finished: dropped streams, Abort, "
       "stalled readers.",
       {}},
      {Metric::kTenantRequests,
       "tessera_requests_by_tenant_total",
       K::kCounter,
       "Admitted calls that do work (generate, tokenize), by the name that --token_file gives the "
       "token; other: names that came into the file while the server ran.",
       {{"tenant", TenantLabels(tenants)}}},
      {Metric::kRefusals,
       "tessera_requests_refused_total",
       K::kCounter,
       "Calls refused because of their token, by reason: there is none, it is unknown, or it does "
       "not permit the call.",
       {{"reason", RefusalReasons()}}},
      {Metric::kPreemptions,
       "tessera_preemptions_total",
       K::kCounter,
       "Times a running request lost its KV pages to another and went back to the queue.",
       {}},
      {Metric::kRequestsRunning,
       "tessera_num_requests_running",
       K::kGauge,
       "Requests that hold KV pages now.",
       {}},
      {Metric::kRequestsWaiting,
       "tessera_num_requests_waiting",
       K::kGauge,
       "Requests in the engine's queue now.",
       {}},
      {Metric::kRpcsInFlight,
       "tessera_rpcs_in_flight",
       K::kGauge,
       "Generate calls that have not ended: decoding images, waiting, running or being read.",
       {}},
      {Metric::kFirstTokenSeconds,
       "tessera_time_to_first_token_seconds",
       K::kHistogram,
       "From the arrival of a request to its first token, image decoding included.",
       {},
       B::kFirstToken},
      {Metric::kInterTokenSeconds,
       "tessera_inter_token_latency_seconds",
       K::kHistogram,
       "Between two tokens of one request.",
       {},
       B::kInterToken},
      {Metric::kRequestSeconds,
       "tessera_e2e_request_latency_seconds",
       K::kHistogram,
       "From the arrival of a request to its last token; requests that finished only.",
       {},
       B::kRequest},
      {Metric::kQueueSeconds,
       "tessera_request_queue_time_seconds",
       K::kHistogram,
       "From submission to the first step; requests that finished only.",
       {},
       B::kStage},
      {Metric::kPrefillSeconds,
       "tessera_request_prefill_time_seconds",
       K::kHistogram,
       "From the first step to the first token; requests that finished only.",
       {},
       B::kStage},
      {Metric::kDecodeSeconds,
       "tessera_request_decode_time_seconds",
       K::kHistogram,
       "From the first to the last token; requests that finished only.",
       {},
       B::kRequest},
      {Metric::kImageFetchSeconds,
       "tessera_image_fetch_seconds",
       K::kHistogram,
       "Fetching one image that a request named by URL, redirects included, whatever the outcome.",
       {},
       B::kStage},
      {Metric::kImageFetches,
       "tessera_image_fetches_total",
       K::kCounter,
       "Images that requests named by URL, by the outcome of fetching them; refused: the rules do "
       "not allow a redirect or an address.",
       {{"outcome", FetchOutcomeNames()}}},
      {Metric::kImageDecodeSeconds,
       "tessera_image_decode_seconds",
       K::kHistogram,
       "Decoding and resizing all images of one request.",
       {},
       B::kStage},
      {Metric::kVisionEncodeSeconds,
       "tessera_vision_encode_seconds",
       K::kHistogram,
       "One run of the vision tower over a batch of images.",
       {},
       B::kStage},
      {Metric::kPromptTokensPerRequest,
       "tessera_request_prompt_tokens",
       K::kHistogram,
       "Prompt tokens, images included, of requests that reached their first token.",
       {},
       B::kTokens},
      {Metric::kGenerationTokensPerRequest,
       "tessera_request_generation_tokens",
       K::kHistogram,
       "Tokens of the answers of requests that finished.",
       {},
       B::kTokens},
      {Metric::kPromptTokens,
       "tessera_prompt_tokens_total",
       K::kCounter,
       "Prompt tokens, images included, of requests that reached their first token.",
       {}},
      {Metric::kImageTokens,
       "tessera_image_tokens_total",
       K::kCounter,
       "Of the prompt tokens, those of images.",
       {}},
      {Metric::kGenerationTokens,
       "tessera_generation_tokens_total",
       K::kCounter,
       "Tokens generated.",
       {}},
      {Metric::kImages,
       "tessera_images_encoded_total",
       K::kCounter,
       "Images that went through the vision tower.",
       {}},
      {Metric::kStepSeconds,
       "tessera_engine_step_seconds",
       K::kHistogram,
       "The engine thread in one step, by part; on a GPU forward mostly waits for the step before.",
       {{"part", {"plan", "vision", "batch", "forward", "compress", "sample"}}},
       B::kStep},
      {Metric::kStepTokens,
       "tessera_engine_step_tokens_total",
       K::kCounter,
       "Tokens that went through the model, recomputed ones included.",
       {{"kind", {"prefill", "decode"}}}},
      {Metric::kDeviceGapSeconds,
       "tessera_device_gap_seconds_total",
       K::kCounter,
       "Idle time of the device between consecutive steps.",
       {}},
      {Metric::kKvBytes,
       "tessera_kv_cache_bytes",
       K::kGauge,
       "The KV arena: used = pages of requests; reclaimable = pages that only the prefix cache "
       "holds; stranded = free pages inside part-filled slabs; free = the rest; total = all.",
       {{"state", {"used", "reclaimable", "stranded", "free", "total"}}}},
      {Metric::kKvUsage,
       "tessera_kv_cache_usage_ratio",
       K::kGauge,
       "used / total of tessera_kv_cache_bytes, 0 to 1.",
       {}},
      {Metric::kKvPages,
       "tessera_kv_cache_pages",
       K::kGauge,
       "Allocated KV pages by format.",
       {{"format", FormatNames()}}},
      {Metric::kKvFormatBytes,
       "tessera_kv_cache_format_bytes",
       K::kGauge,
       "Bytes of the allocated KV pages by format.",
       {{"format", FormatNames()}}},
      {Metric::kKvMeanBits,
       "tessera_request_kv_bit_width",
       K::kHistogram,
       "Bits of a stored value at a request's end, metadata included; requests that finished only.",
       {},
       B::kBits},
      {Metric::kKvCommits,
       "tessera_kv_commits_total",
       K::kCounter,
       "Prompts whose KV cache was compressed by their policy.",
       {}},
      {Metric::kKvCommitSeconds,
       "tessera_kv_commit_seconds",
       K::kHistogram,
       "Time that the commits and window exits of one engine step took, when a prompt was "
       "committed.",
       {},
       B::kStage},
      {Metric::kKvQuantizeSeconds,
       "tessera_kv_quantize_seconds",
       K::kHistogram,
       "Time that the commits and window exits of one engine step took to store tokens in their "
       "new formats; on a GPU the time to ask for it.",
       {},
       B::kStep},
      {Metric::kKvExitedTokens,
       "tessera_kv_window_exit_tokens_total",
       K::kCounter,
       "Tokens that left the 16-bit window of a running request, mean over layers.",
       {}},
      {Metric::kKvHeldSlopes,
       "tessera_kv_held_slopes_total",
       K::kCounter,
       "Logit maps (calibquant; one for each row, head and layer) whose slope was clamped to zero.",
       {}},
      {Metric::kEvictedTokens,
       "tessera_evicted_tokens_total",
       K::kCounter,
       "Tokens that policies dropped from finished requests' caches, mean over layers.",
       {{"class", {"text", "vision"}}}},
      {Metric::kPrefixBlocks,
       "tessera_prefix_cache_blocks",
       K::kGauge,
       "Blocks of tokens in the prefix index.",
       {}},
      {Metric::kPrefixLookupTokens,
       "tessera_prefix_cache_lookup_tokens_total",
       K::kCounter,
       "Prompt tokens looked up in the prefix cache.",
       {}},
      {Metric::kPrefixHitTokens,
       "tessera_prefix_cache_hit_tokens_total",
       K::kCounter,
       "Prompt tokens found there.",
       {}},
      {Metric::kImageLookups,
       "tessera_image_cache_lookups_total",
       K::kCounter,
       "Images looked up in the cache of encoded images.",
       {}},
      {Metric::kImageHits,
       "tessera_image_cache_hits_total",
       K::kCounter,
       "Images found there.",
       {}},
      {Metric::kImageCacheBytes,
       "tessera_image_cache_bytes",
       K::kGauge,
       "Bytes of encoded images in the cache.",
       {}},
      {Metric::kImageCacheEntries,
       "tessera_image_cache_entries",
       K::kGauge,
       "Encoded images in the cache.",
       {}},
      {Metric::kHeartbeatAge,
       "tessera_engine_heartbeat_age_seconds",
       K::kGauge,
       "Time since the engine's last loop iteration.",
       {}},
      {Metric::kReady,
       "tessera_ready",
       K::kGauge,
       "1 while new requests are accepted; 0 while starting and draining.",
       {}},
      {Metric::kReloads,
       "tessera_reloads_total",
       K::kCounter,
       "Reloads of changed configuration files, by file and result; after a failed one the old "
       "content stays in use.",
       {{"file", ReloadedFiles()}, {"result", {"ok", "failed"}}}},
      {Metric::kCertificateExpires,
       "tessera_tls_certificate_expiry_timestamp_seconds",
       K::kGauge,
       "When the server's certificate expires, in Unix time; 0 without one.",
       {}},
      {Metric::kStartTime,
       "process_start_time_seconds",
       K::kGauge,
       "Start of the process, seconds since the Unix epoch.",
       {}},
      {Metric::kResidentMemory,
       "process_resident_memory_bytes",
       K::kGauge,
       "Resident memory of the process.",
       {}},
      {Metric::kCpuSeconds,
       "process_cpu_seconds_total",
       K::kCounter,
       "User and system CPU time of the process.",
       {}},
      {Metric::kOpenFiles, "process_open_fds", K::kGauge, "Open file descriptors.", {}},
      {Metric::kBuildInfo,
       "tessera_build_info",
       K::kGauge,
       "1; the labels say what runs.",
       {{"version", {version}}, {"model", {model}}, {"device", {device}}}},
  };
}

const std::vector<std::string>& RefusalReasons() {
  static const std::vector<std::string> kReasons = {"no_token",   "bad_token",  "not_admin", "rate",
                                                    "concurrent", "max_tokens", "policy"};
  return kReasons;
}

const std::vector<std::string>& ReloadedFiles() {
  static const std::vector<std::string> kFiles = {"tls", "tokens"};
  return kFiles;
}

const std::vector<double>& BucketEdges(Buckets buckets) {
  // First-token and request edges are vLLM's; inter-token ones too, with finer steps below its
  // first edge of 10 ms, so that one histogram_quantile query works on both servers.
  static const std::vector<double> kNone;
  static const std::vector<double> kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                  .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                                  20,   40,   80,  160, 640, 2560};
  static const std::vector<double> kInterToken = {.002, .004, .006, .008, .01, .025, .05, .075,
                                                  .1,   .15,  .2,   .3,   .4,  .5,   .75, 1,
                                                  2.5,  5,    7.5,  10,   20,  40,   80};
  static const std::vector<double> kRequest = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                               30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
  // Parts of a request are often far below vLLM's first edge of 0.3 s.
  static const std::vector<double> kStage = {.001, .0025, .005, .01, .025, .05, .1, .2, .3,
                                             .5,   .8,    1,    1.5, 2,    2.5, 5,  10, 15,
                                             20,   30,    40,   50,  60,   120, 240};
  static const std::vector<double> kStep = {.00001, .00003, .0001, .0003, .001, .002, .004,
                                            .006,   .008,   .01,   .02,   .04,  .08,  .16,
                                            .32,    .64,    1.28,  2.56,  5.12, 10.24};
  static const std::vector<double> kTokens = {1,   2,    5,    10,   20,    50,    100,  200,
                                              500, 1000, 2000, 5000, 10000, 20000, 50000};
  static const std::vector<double> kBits = {1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 14, 16};
  switch (buckets) {
    case Buckets::kNone:
      return kNone;
    case Buckets::kFirstToken:
      return kFirstToken;
    case Buckets::kInterToken:
      return kInterToken;
    case Buckets::kRequest:
      return kRequest;
    case Buckets::kStage:
      return kStage;
    case Buckets::kStep:
      return kStep;
    case Buckets::kTokens:
      return kTokens;
    case Buckets::kBits:
      return kBits;
  }
  return kNone;
}

}  // namespace tessera
