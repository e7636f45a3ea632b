// Checks the contract of Ops::PagedAttention for a sequence's runs, for every host backend.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// Returns the map of sequence s's logits, or identity if no run has one. CHECKs that all maps of
// the sequence are equal and not negative, that tokens are stored, and that exactly the formats
// with headers name one. For more than one row, CHECKs that the last run is RAW16, holds all of the
// rows and has no map.
LogitMap CheckRuns(const KvLayerView& kv, int64_t s, int64_t rows);

}  // namespace tessera
