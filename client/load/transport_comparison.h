// `tessera bench --compare_http`: what OpenAI's HTTP costs against gRPC, as clients see it.
//
// Rounds: the same fresh requests over one door and then over the other, which goes first taking
// turns, so that what else the machine does falls on both. Cache salts keep one door from finding
// what the other computed. A ratio is of one round, and the report has the median of the rounds
// with its bounds (percentile.h): ratios of medians would mix rounds of different luck.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/io.h"
#include "client/load/bench_config.h"
#include "client/load/percentile.h"
#include "grpcpp/channel.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// One call, whichever door it went through.
struct TransportCall {
  double ttft_seconds = 0, e2e_seconds = 0;  // from its sending
  double end_seconds = 0;                    // from the round's first sending
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// Of the calls of one round: medians, and all output tokens over the time until the last end.
struct TransportRound {
  double ttft_seconds = 0;
  double tpot_seconds = 0;  // (e2e - TTFT) / (output tokens - 1); 0 where all have one token
  double e2e_seconds = 0;
  double tokens_per_second = 0;
};
TransportRound SummarizeRound(const std::vector<TransportCall>& calls);  // REQUIRES: not empty

struct TransportComparison {
  int concurrency = 0, requests_per_round = 0;
  double prompt_tokens = 0, output_tokens = 0;  // of a request, mean
  std::vector<TransportRound> grpc, http;       // as many

  // HTTP over gRPC; 1 is as fast. `field` is 0 in no round.
  Median Ratio(double TransportRound::*field) const;
  std::string Render() const;
  nlohmann::ordered_json ToJson() const;
};

// CANCELLED if interrupted, UNAVAILABLE with the first failure: a comparison has no failed calls.
absl::StatusOr<TransportComparison> CompareTransports(const std::shared_ptr<grpc::Channel>& channel,
                                                      const BenchConfig& config,
                                                      const Workload& workload, const Io& io);

}  // namespace tessera::client
