// What load `tessera bench` makes.
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

// Limits that a request must keep to count as good; unset ones are not checked.
struct Slo {
  std::optional<double> ttft_seconds, tpot_seconds, e2e_seconds;
  bool any() const { return ttft_seconds || tpot_seconds || e2e_seconds; }
};

// "ttft=200ms,tpot=50ms,e2e=2s", each at most once.
absl::Status ParseSlo(absl::string_view text, Slo* out);

struct BenchConfig {
  Endpoint endpoint{kDefaultAddress};
  int concurrency = 8;  // closed loop
  double rate = 0;      // requests a second; > 0: open loop
  int requests = 0;     // 0: until `duration`
  absl::Duration duration;
  int warmup = 2;
  int images = 0;
  int image_side = 336;
  bool shared_images = false;
  int prompt_tokens = 64;
  std::string prompt;  // instead of made-up words
  int output_tokens = 64;
  uint64_t seed = 0;  // drawn at random unless --seed says it
  Slo slo;
  absl::Duration timeout;
  std::string kv_policy;
  bool bypass_prefix = false;
  std::string compare_http;  // HOST:PORT; not empty: transport_comparison.h
  int rounds = 20;
  bool json = false;

  bool open_loop() const { return rate > 0; }
  // One in flight: one request. Else so many that begin and end of a round are a small part of it.
  int requests_per_round() const { return concurrency == 1 ? 1 : 4 * concurrency; }

  void Register(Options* options);
  // Combinations of options, and defaults that depend on others.
  absl::Status Finish(const Options& options);

 private:
  std::optional<uint64_t> given_seed_;
};

// Makes the requests of a run: request i is the same for the same config and seed.
class Workload {
 public:
  // `words`: length of a made-up prompt.
  Workload(const BenchConfig& config, int words);
  // Threads: safe.
  v1::GenerateRequest Make(int64_t index) const;

 private:
  const BenchConfig& config_;
  const int words_;
  std::vector<std::string> shared_images_;
};

}  // namespace tessera::client
