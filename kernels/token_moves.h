// The contract of Ops::MoveTokens, checked alike by every backend before it touches a page.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// TESSERA_CHECKs slots in range, different pages on both sides of a move, whole pages in order
// where the format fills whole pages, and the clip ratios in (0, 1].
void CheckTokenMoves(const KvGeometry& geometry, Format to, const QuantRule& rule,
                     const TokenMove* moves, int64_t n);

}  // namespace tessera
