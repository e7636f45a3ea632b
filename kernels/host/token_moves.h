// Checks the contract of Ops::MoveTokens, for every backend, before a page is touched.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// CHECKs that slots are in range, that a move's pages differ, that a format that fills whole pages
// gets them whole and in order, that exactly the formats with headers name one, and that clip
// ratios are in (0, 1] and the quantile in [0, 0.5).
void CheckTokenMoves(const KvGeometry& geometry, Format to, const QuantRule& rule,
                     const TokenMove* moves, int64_t n);

// Returns the end of the segment that begins at move `begin`: the neighbouring moves with one
// header.
int64_t SegmentEnd(const TokenMove* moves, int64_t begin, int64_t n);

}  // namespace tessera
