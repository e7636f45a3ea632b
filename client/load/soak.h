// Drives a server through a soak and says whether it lost anything (soak_checks.h).
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "client/cli/interrupt.h"
#include "client/cli/io.h"
#include "client/load/soak_checks.h"
#include "client/load/soak_config.h"
#include "grpcpp/channel.h"

namespace tessera::client {

// Warms the server up, waits until it is idle, flushes its caches and takes the sample before; then
// sends the load and samples beside it; flushes again and takes the sample after, once that equals
// the one before or `settle` has passed. An interrupt ends the sending; what was sent is checked.
// Errors: those of the first failed warm-up request, admin call or scrape.
absl::StatusOr<SoakRecord> RunSoak(const std::shared_ptr<grpc::Channel>& channel,
                                   const std::shared_ptr<grpc::Channel>& admin,
                                   const BenchConfig& bench, const SoakConfig& soak,
                                   const Workload& workload, const Io& io);

}  // namespace tessera::client
