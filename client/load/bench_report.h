// Computes the numbers of a load test from finished requests. kDefinitions defines each number and
// is printed with the results, because tools disagree about them. Threads: functions only, safe.
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
  // When the request should have been sent: its arrival in an open loop, its sending in a closed
  // one. Latencies count from here, so that a client that falls behind does not hide the delay.
  Clock::time_point due;
  CallResult call;
  bool cancelled = false;  // this client cancelled it, possibly after its end
};

struct BenchReport {
  int64_t good = 0, failed = 0;
  std::map<std::string, int64_t> errors;  // count by code
  double window_seconds = 0;              // from the first due time to the last end
  Summary ttft, itl, tpot, e2e;           // seconds, of good requests
  Summary send_lag;                       // due -> sent: how late this client was
  int64_t prompt_tokens = 0, image_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double tokens_per_delta = 0;
  double kv_bytes_mean = 0, kv_bits_mean = 0;
  int64_t preemptions = 0;
  double requests_per_second = 0, output_tokens_per_second = 0, prompt_tokens_per_second = 0;
  int64_t within_slo = 0;
  double goodput = 0;  // requests/s within every limit of the SLO

  std::string Render(const BenchConfig& config) const;
  nlohmann::ordered_json ToJson(const BenchConfig& config) const;
};

// The latencies of one good request.
struct Latency {
  double ttft_seconds = 0, e2e_seconds = 0;
  std::optional<double> tpot_seconds;  // unset with fewer than two deltas
  std::vector<double> itl_seconds;
};
Latency MeasureLatency(const Measured& measured);

BenchReport MakeReport(const std::vector<Measured>& results, const Slo& slo);

}  // namespace tessera::client
