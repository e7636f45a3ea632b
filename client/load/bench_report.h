// From finished requests to the numbers of a load test. kDefinitions says what each number means;
// tools disagree about them, so they are printed with the results.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "client/load/bench_config.h"
#include "client/load/percentile.h"
#include "client/rpc/call_queue.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

extern const char kDefinitions[];

struct Measured {
  // When it should have been sent: open loop, its arrival; closed loop, when it was sent. Latencies
  // count from here, so that a client or server that falls behind does not hide its own delay.
  Clock::time_point due;
  CallResult call;
  bool cancelled = false;  // this client cancelled it, perhaps after its end
};

struct BenchReport {
  int64_t good = 0, failed = 0;
  std::map<std::string, int64_t> errors;  // by code
  double window_seconds = 0;              // first due -> last end
  Summary ttft, itl, tpot, e2e;           // seconds, of good requests
  Summary send_lag;                       // due -> sent: the client's own lateness
  int64_t prompt_tokens = 0, image_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double tokens_per_delta = 0;
  double kv_bytes_mean = 0, kv_bits_mean = 0;
  int64_t preemptions = 0;
  double requests_per_second = 0, output_tokens_per_second = 0, prompt_tokens_per_second = 0;
  int64_t within_slo = 0;
  double goodput = 0;  // requests a second within every limit of the SLO

  std::string Render(const BenchConfig& config) const;
  nlohmann::ordered_json ToJson(const BenchConfig& config) const;
};

// Latencies of one good request.
struct Latency {
  double ttft_seconds = 0, e2e_seconds = 0;
  std::optional<double> tpot_seconds;  // none with fewer than two deltas
  std::vector<double> itl_seconds;
};
Latency MeasureLatency(const Measured& measured);

BenchReport MakeReport(const std::vector<Measured>& results, const Slo& slo);

}  // namespace tessera::client
