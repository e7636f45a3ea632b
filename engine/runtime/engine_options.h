// The settings of an engine. Plain values.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace tessera {

struct EngineOptions {
  int64_t kv_cache_bytes = 0;  // arena size; > 0
  int64_t image_cache_bytes = 256 << 20;
  int max_batch_tokens = 512;  // rows of one step: prefill chunks and decodes
  int max_sequences = 64;      // running at once
  int max_queue = 256;         // waiting; more are refused
  int context_tokens = 0;      // 0: the model's
  bool prefix_cache = true;
  absl::Duration stall_timeout = absl::Seconds(30);
  // Whether a step may be scheduled and queued on the device while the one before it still runs.
  // Unset: where the backend is asynchronous.
  std::optional<bool> async_scheduling;
  bool warm_up = false;  // run the largest steps once before there are requests (warm_up.h)
  bool warm_up_low_pass = false;  // and the largest low-pass measurement
  bool check_integrity = false;   // audit the cache after every step; debug builds and tests
};

}  // namespace tessera
