// A step between its scheduling and the processing of its outputs. Two may be in flight.
//
// Threads: the engine's thread.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/model/batch.h"
#include "engine/runtime/request_state.h"
#include "engine/runtime/scheduler.h"

namespace tessera {

struct InFlightStep {
  SchedulerOutput scheduled;
  Batch batch;
  bool follows = false;  // scheduled while the step before was in flight, or directly after it
  // [scheduled.items] The sequence's next step needs this step's statistics.
  std::vector<bool> next_step_needs_statistics;
  // Sequences that are blocked until this step's statistics are here, and those that are blocked
  // until their low-pass measurement is; the first `measuring` of the latter are under way.
  std::vector<Sequence*> await_statistics, await_low_pass;
  size_t measuring = 0;
  // One entry for each image that the step encoded, by request; images of several requests may
  // share one pass through the tower.
  std::vector<RequestState*> encoded_for;
  int encoded_images = 0;
  // Requests that ended while the step was in flight: `scheduled` still names their sequences.
  std::vector<std::unique_ptr<RequestState>> ended;
};

}  // namespace tessera
