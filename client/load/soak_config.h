// What `tessera bench --soak` does besides what every bench run does.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cli/options.h"
#include "client/load/bench_config.h"

namespace tessera::client {

struct SoakConfig {
  bool on = false;
  std::string admin_address, metrics_address;
  double cancel_share = 0.1;  // of the requests
  double slow_share = 0.05;
  absl::Duration read_pause = absl::Milliseconds(20);  // of a slow reader
  absl::Duration settle = absl::Seconds(30);           // for the last request to be gone
  double max_resident_growth_mib = 32;

  void Register(Options* options);
  // Also gives the bench options their defaults for a soak.
  absl::Status Finish(const Options& options, BenchConfig* bench) const;
};

}  // namespace tessera::client
