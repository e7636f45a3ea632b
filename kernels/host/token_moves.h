// The contract of Ops::MoveTokens, checked alike by every backend before it touches a page.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// TESSERA_CHECKs slots in range, different pages on both sides of a move, whole pages in order
// where the format fills whole pages, headers where and only where it has them, the clip ratios in
// (0, 1] and the quantile in [0, 0.5).
void CheckTokenMoves(const KvGeometry& geometry, Format to, const QuantRule& rule,
                     const TokenMove* moves, int64_t n);

// The end of the segment that begins at move `begin`: of neighbouring moves with one header.
int64_t SegmentEnd(const TokenMove* moves, int64_t begin, int64_t n);

}  // namespace tessera
