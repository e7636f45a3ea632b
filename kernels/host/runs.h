// The contract of Ops::PagedAttention on a sequence's runs, checked alike by every host backend.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// The map of sequence s's logits; identity where no run has one. TESSERA_CHECKs that all maps of
// the sequence are equal and not negative, that tokens were stored, and that headers are where and
// only where the format has them; for more than one row, that the last run is RAW16, holds all of
// them and is not mapped.
LogitMap CheckRuns(const KvLayerView& kv, int64_t s, int64_t rows);

}  // namespace tessera
