// The interface by which the engine reports its work. The server turns reports into metrics.
//
// Threads: every call comes from the engine's thread; implementations must be quick and not block.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/request/request.h"

namespace tessera {

// A snapshot after a step.
struct EngineLoad {
  int running = 0;
  int waiting = 0;
  int64_t kv_bytes_used = 0;         // pages that requests hold
  int64_t kv_bytes_reclaimable = 0;  // pages that only the prefix cache holds
  int64_t kv_bytes_stranded = 0;     // free pages inside part-filled slabs
  int64_t kv_bytes_total = 0;
  int64_t pages_by_format[kNumFormats] = {};
  int64_t bytes_by_format[kNumFormats] = {};
  int64_t prefix_blocks = 0;
  int64_t image_cache_bytes = 0;
  int64_t image_cache_entries = 0;
};

// One iteration of the engine's loop: the results that it processed, and its thread's time. With
// EngineOptions::async_scheduling the results are those of the step before.
struct StepReport {
  int prefill_tokens = 0;
  int decode_tokens = 0;
  int sequences = 0;
  int64_t clamped_slopes = 0;  // rows x heads x layers: Ops::clamped_slopes
  double plan_seconds = 0;
  double vision_seconds = 0;    // handing images to the device
  double batch_seconds = 0;     // the step's arrays
  double forward_seconds = 0;   // handing the step to the device, and waiting for answers
  double gap_seconds = 0;       // the device was idle since the step before
  double compress_seconds = 0;  // commits and window exits
  double sample_seconds = 0;    // sampling on the host, and sending events
};

// Compression work on the caches of one step's sequences.
struct CompressReport {
  int commits = 0;
  double commit_seconds = 0;  // window exits of the same step included
  double exited_tokens = 0;   // tokens that left the window, mean over layers
  double move_seconds = 0;    // the part of it that stores tokens in their new formats
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnStep(const StepReport&, const EngineLoad&) {}
  virtual void OnFirstToken(const Request&, double seconds_since_received) {}
  virtual void OnInterToken(double seconds) {}
  virtual void OnPrefixLookup(int prompt_tokens, int hit_tokens) {}
  virtual void OnImageLookup(bool hit) {}
  virtual void OnImageEncoded(int images, double seconds) {}  // of the device's time
  virtual void OnCompressed(const CompressReport&) {}         // after steps with such work
  virtual void OnPreempted(const Request&) {}
  // Exactly once a request, however it ends.
  virtual void OnFinished(const Request&, const Event& last) {}
};

}  // namespace tessera
