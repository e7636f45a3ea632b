// Sends a workload, closed loop or open loop, and keeps when each request was due and how it went.
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
  std::optional<absl::Duration> cancel_after;  // sending
  absl::Duration read_pause;                   // before each message but the first
};

struct LoadPlan {
  int64_t first_index = 0;  // of the workload
  int64_t requests = 0;     // 0: no limit
  absl::Duration duration;  // of sending; 0: no limit
  int concurrency = 1;      // closed loop; not used in open loop
  double rate = 0;          // > 0: open loop, requests a second
  uint64_t seed = 0;        // of the arrivals
  absl::Duration timeout;   // of a request
  // Null: every request is read as fast as it comes, and to its end. Called when request number i
  // is sent, on the thread of RunLoad.
  std::function<Treatment(int64_t index)> treat;
};

// Makes request number i; called on a thread of its own, ahead of need.
using MakeRequest = std::function<v1::GenerateRequest(int64_t index)>;
// Called after each finished request; cancelled ones that ended so have not failed.
using OnProgress = std::function<void(int64_t done, int64_t failed)>;

// Returns when every request that was sent has ended; an interrupt cancels what runs, and those
// requests are not in the result. REQUIRES: requests or duration is limited. Answers' text is
// dropped.
std::vector<Measured> RunLoad(std::shared_ptr<grpc::Channel> channel, const LoadPlan& plan,
                              const MakeRequest& make, Interrupt* interrupt,
                              const OnProgress& on_progress);

}  // namespace tessera::client
