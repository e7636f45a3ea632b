// The largest steps that an engine can be asked for, run once before there are requests: what a
// device allocates, loads or chooses the first time is there by then, so that no request waits for
// it and memory that does not suffice is found at the start.
//
// Left out: what only some policies ask for (moves, statistics but the dearest, low-pass
// residuals), and edits of logits.
#pragma once

#include <cstdint>

#include "engine/model/llava.h"

namespace tessera {

struct WarmUpSizes {
  int rows = 0;           // of a step; at most model.max_rows()
  int sequences = 0;      // of a step; at most rows
  int context = 0;        // tokens of a sequence
  bool low_pass = false;  // residuals of as many prompts at once as may be
};

// Writes over `arena`, which must hold no pages yet. Threads: the model's. Errors: as of Forward.
void WarmUp(LlavaModel& model, const WarmUpSizes& sizes, uint8_t* arena, int64_t arena_bytes);

}  // namespace tessera
