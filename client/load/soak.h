// Runs a soak test against a server, and records samples for soak_checks.h.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "client/cli/interrupt.h"
#include "client/cli/io.h"
#include "client/load/soak_checks.h"
#include "client/load/soak_config.h"
#include "grpcpp/channel.h"

namespace tessera::client {

// Runs these steps:
//   1. Warms the server up, waits until it is idle, flushes its caches, and takes the first sample.
//   2. Sends the load, and takes samples meanwhile. An interrupt ends the sending.
//   3. Flushes the caches, and takes the last sample when it equals the first one or when `settle`
//      has passed.
// Returns the error of the first failed warm-up request, admin call or scrape.
absl::StatusOr<SoakRecord> RunSoak(const std::shared_ptr<grpc::Channel>& channel,
                                   const std::shared_ptr<grpc::Channel>& admin,
                                   const BenchConfig& bench, const SoakConfig& soak,
                                   const Workload& workload, const Io& io);

}  // namespace tessera::client
