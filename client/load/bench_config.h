// The options of `tessera bench`, and the requests that they describe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cli/options.h"
#include "client/rpc/connection.h"
#include "client/rpc/generation_options.h"

namespace tessera::client {

// Service-level objective: limits that a request must keep to count for goodput. Unset limits are
// not checked.
struct Slo {
  std::optional<double> ttft_seconds, tpot_seconds, e2e_seconds;
  bool any() const { return ttft_seconds || tpot_seconds || e2e_seconds; }
};

// Parses "ttft=200ms,tpot=50ms,e2e=2s"; each limit at most once.
absl::Status ParseSlo(absl::string_view text, Slo* out);

struct BenchConfig {
  Endpoint endpoint{kDefaultAddress};
  int concurrency = 8;  // requests in flight of a closed loop
  double rate = 0;      // requests/s; above 0 the loop is open
  int requests = 0;     // 0: send until `duration` has passed
  absl::Duration duration;
  int warmup = 2;
  int images = 0;
  int image_side = 336;
  bool shared_images = false;
  int prompt_tokens = 64;
  std::string prompt;  // if not empty, replaces the made-up words
  int output_tokens = 64;
  uint64_t seed = 0;  // random unless --seed is given
  Slo slo;
  absl::Duration timeout;
  std::string kv_policy;
  bool bypass_prefix = false;
  std::string compare_http;  // HOST:PORT; if not empty, runs transport_comparison.h
  int rounds = 20;
  bool json = false;

  bool open_loop() const { return rate > 0; }
  // Returns 1 with one request in flight. Else a round has more requests than are in flight, so
  // that its beginning and end are a small part of it.
  int requests_per_round() const { return concurrency == 1 ? 1 : 4 * concurrency; }

  void Register(Options* options);
  // Checks combinations of options, and sets defaults that depend on others.
  absl::Status Finish(const Options& options);

 private:
  std::optional<uint64_t> given_seed_;
};

// Makes the requests of a run. Request i is the same for the same config and seed.
class Workload {
 public:
  // `words` is the length of a made-up prompt. Keeps a reference to `config`.
  Workload(const BenchConfig& config, int words);
  // Threads: safe.
  v1::GenerateRequest Make(int64_t index) const;

 private:
  const BenchConfig& config_;
  const int words_;
  std::vector<std::string> shared_images_;
};

}  // namespace tessera::client
