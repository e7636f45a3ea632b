// `tessera bench --compare_http`: compares the latency and throughput of OpenAI's HTTP and gRPC, as
// clients see them.
//
// Each round sends the same new requests over one transport and then over the other. The order
// alternates, so that other load on the machine affects both alike. Each transport has a cache salt
// of its own, so that none finds what the other one computed. The report shows the median over
// rounds of the ratio within a round, with its bounds (percentile.h). A ratio of medians would mix
// rounds of different machine load.
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

// One call over either transport.
struct TransportCall {
  double ttft_seconds = 0, e2e_seconds = 0;  // since its sending
  double end_seconds = 0;                    // since the first sending of the round
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// Medians over the calls of one round, and its output tokens over the time until the last end.
struct TransportRound {
  double ttft_seconds = 0;
  double tpot_seconds = 0;  // (e2e - TTFT) / (output tokens - 1); 0 if every answer is one token
  double e2e_seconds = 0;
  double tokens_per_second = 0;
};
TransportRound SummarizeRound(const std::vector<TransportCall>& calls);  // REQUIRES: not empty

struct TransportComparison {
  int concurrency = 0, requests_per_round = 0;
  double prompt_tokens = 0, output_tokens = 0;  // mean of a request
  std::vector<TransportRound> grpc, http;       // of the same length

  // Returns the ratio of HTTP to gRPC. REQUIRES: `field` is not 0 in any round.
  Median Ratio(double TransportRound::*field) const;
  std::string Render() const;
  nlohmann::ordered_json ToJson() const;
};

// Runs the comparison. Returns CANCELLED after an interrupt, and UNAVAILABLE for the first failed
// call, because a comparison with failed calls is worthless.
absl::StatusOr<TransportComparison> CompareTransports(const std::shared_ptr<grpc::Channel>& channel,
                                                      const BenchConfig& config,
                                                      const Workload& workload, const Io& io);

}  // namespace tessera::client
