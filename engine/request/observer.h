// What the engine reports while it runs, as an interface: the server turns it into metrics and
// logs.
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
  int64_t kv_bytes_reclaimable = 0;  // pages that only the prefix index holds
  int64_t kv_bytes_stranded = 0;     // free pages inside part-filled slabs
  int64_t kv_bytes_total = 0;
  int64_t pages_by_format[kNumFormats] = {};
  int64_t bytes_by_format[kNumFormats] = {};
  int64_t prefix_blocks = 0;
  int64_t image_cache_bytes = 0;
  int64_t image_cache_entries = 0;
};

// One turn of the engine: what it was answered, and where its thread's time went. With steps
// planned ahead (EngineOptions::async_scheduling) that is the answer to the step before the one it
// planned.
struct StepReport {
  int prefill_tokens = 0;
  int decode_tokens = 0;
  int sequences = 0;
  int64_t clamped_slopes = 0;  // rows x heads x layers: Ops::clamped_slopes
  double plan_seconds = 0;
  double vision_seconds = 0;    // handing pictures to the device
  double batch_seconds = 0;     // the step's arrays
  double forward_seconds = 0;   // handing the step to the device, and waiting for answers
  double gap_seconds = 0;       // before them, since the step before: the device had nothing to do
  double compress_seconds = 0;  // commits and window exits
  double sample_seconds = 0;    // what is left of sampling on the host, and telling the readers
};

// What policies did to the caches of one step's sequences.
struct CompressReport {
  int commits = 0;
  double commit_seconds = 0;  // in steps with commits, those of window exits beside them included
  double exited_tokens = 0;   // that left the window, mean over layers
  double move_seconds = 0;    // of all that: storing tokens in their new formats
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnStep(const StepReport&, const EngineLoad&) {}
  virtual void OnFirstToken(const Request&, double seconds_since_received) {}
  virtual void OnInterToken(double seconds) {}
  virtual void OnPrefixLookup(int prompt_tokens, int hit_tokens) {}
  virtual void OnImageLookup(bool hit) {}
  virtual void OnImageEncoded(int images, double seconds) {}  // of the device
  virtual void OnCompressed(const CompressReport&) {}         // of a step in which anything was
  virtual void OnPreempted(const Request&) {}
  // Exactly once a request, however it ends.
  virtual void OnFinished(const Request&, const Event& last) {}
};

}  // namespace tessera
