// The options of `tessera bench --soak`, in addition to those of every bench run.
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
  double cancel_share = 0.1;  // share of the requests
  double slow_share = 0.05;
  absl::Duration read_pause = absl::Milliseconds(20);  // pause of a slow reader
  absl::Duration settle = absl::Seconds(30);           // time for the server to become idle
  double max_resident_growth_mib = 32;

  void Register(Options* options);
  // Checks the options, and sets the defaults of bench options for a soak test.
  absl::Status Finish(const Options& options, BenchConfig* bench) const;
};

}  // namespace tessera::client
