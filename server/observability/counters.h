// The counters that single parts of the server need, as interfaces, so that those parts do not
// depend on all metrics. Metrics implements them. Threads: safe.
#pragma once

#include <string>

#include "server/observability/fetch_outcome.h"

namespace tessera {

class AccessCounters {
 public:
  virtual ~AccessCounters() = default;
  // Counts a call of a tenant that was let in to do work.
  virtual void CountTenant(const std::string& tenant) = 0;
  // Counts a rejected call. `reason` is one of RefusalReasons (metrics_table.h).
  virtual void CountRefusal(const std::string& reason) = 0;
};

class FetchCounters {
 public:
  virtual ~FetchCounters() = default;
  // Counts an attempt to fetch an image.
  virtual void CountImageFetch(FetchOutcome outcome, double seconds) = 0;
};

}  // namespace tessera
