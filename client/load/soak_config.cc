#include "client/load/soak_config.h"

#include "absl/strings/str_cat.h"
#include "client/rpc/connection.h"

namespace tessera::client {
namespace {

constexpr const char* kSoakOnly[] = {"admin_address", "metrics_address", "cancel_share",
                                     "slow_share",    "read_pause",      "settle",
                                     "max_growth_mib"};
// A soak test measures no latencies, and its length is a number of requests.
constexpr const char* kBenchOnly[] = {"rate", "duration", "slo"};

constexpr int kDefaultRequests = 5000;
// With fewer requests, a third of the run has too few samples for a slope.
constexpr int kMinRequests = 30;

}  // namespace

void SoakConfig::Register(Options* options) {
  admin_address = kDefaultAdminAddress;
  metrics_address = "127.0.0.1:9090";
  options->Add(
      "soak", &on,
      "check for leaks: send --requests requests (default 5000) with an image each, answers "
      "of up to --output_tokens tokens, and every KV policy of the server in turn (or "
      "--kv_policy). Some are cancelled at random moments, some are read slowly. Afterwards "
      "KV pages, requests, open files and memory must be as before. No other client may "
      "use the server meanwhile, and its caches should be full after a third of the run. "
      "Exits with status 1 if a check fails");
  options->Add("admin_address", "HOST:PORT", &admin_address,
               "--soak: the admin listener, which flushes the caches");
  options->Add("metrics_address", "HOST:PORT", &metrics_address, "--soak: the metrics listener");
  options->Add("cancel_share", &cancel_share, Range<double>{0, 1},
               "--soak: share of the requests that are cancelled");
  options->Add("slow_share", &slow_share, Range<double>{0, 1},
               "--soak: share of the requests that are read slowly");
  options->Add("read_pause", &read_pause, "--soak: pause before each message of a slow reader");
  options->Add("settle", &settle, "--soak: how long the server may take to become idle afterwards");
  options->Add("max_growth_mib", &max_resident_growth_mib, Range<double>{0, 1 << 20},
               "--soak: by how many MiB the server's resident memory may grow from the second "
               "third of the requests to the end, by the line that fits best");
}

absl::Status SoakConfig::Finish(const Options& options, BenchConfig* bench) const {
  for (const char* name : kSoakOnly) {
    if (!on && options.given(name)) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, " needs --soak"));
    }
  }
  if (!on) return absl::OkStatus();
  for (const char* name : kBenchOnly) {
    if (options.given(name)) {
      return absl::InvalidArgumentError(absl::StrCat("--soak does not go with --", name));
    }
  }
  if (!options.given("images")) bench->images = 1;
  if (!options.given("requests")) bench->requests = kDefaultRequests;
  if (bench->requests < kMinRequests) {
    return absl::InvalidArgumentError(
        absl::StrCat("--soak: --requests must be ", kMinRequests, " or more"));
  }
  return absl::OkStatus();
}

}  // namespace tessera::client
