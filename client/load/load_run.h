// Sends a workload in a closed or open loop, and records when each request was due and its result.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "client/cli/interrupt.h"
#include "client/load/bench_report.h"

namespace tessera::client {

// How this client behaves towards one request.
struct Treatment {
  std::optional<absl::Duration> cancel_after;  // from the sending to the cancellation
  absl::Duration read_pause;                   // before each message after the first
};

struct LoadPlan {
  int64_t first_index = 0;  // index of the first request in the workload
  int64_t requests = 0;     // 0: no limit
  absl::Duration duration;  // how long requests are sent; 0: no limit
  int concurrency = 1;      // requests in flight of a closed loop
  double rate = 0;          // requests/s; above 0 the loop is open
  uint64_t seed = 0;        // seed of the arrivals
  absl::Duration timeout;   // deadline of a request; 0 is none
  // Called on the thread of RunLoad when request `index` is sent. If null, every request is read to
  // its end as fast as it comes.
  std::function<Treatment(int64_t index)> treat;
};

// Makes request `index`. Called ahead of need on a thread of its own.
using MakeRequest = std::function<v1::GenerateRequest(int64_t index)>;
// Called after each finished request. A request that this client cancelled has not failed.
using OnProgress = std::function<void(int64_t done, int64_t failed)>;

// Blocks until every request that was sent has ended, and returns the results without the answers'
// text. An interrupt cancels running requests and leaves them out of the results. REQUIRES: a limit
// of requests or duration.
std::vector<Measured> RunLoad(std::shared_ptr<grpc::Channel> channel, const LoadPlan& plan,
                              const MakeRequest& make, Interrupt* interrupt,
                              const OnProgress& on_progress);

}  // namespace tessera::client
