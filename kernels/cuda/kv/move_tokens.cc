#include "kernels/cuda/kv/move_tokens.h"

#include "kernels/layout/quantize.h"

namespace tessera::cuda {

void MoveTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry, Format to,
                const QuantRule& rule, const TokenMove* moves, int64_t n) {
  TESSERA_CHECK(rule.clip_k > 0 && rule.clip_k <= 1 && rule.clip_v > 0 && rule.clip_v <= 1);
  TESSERA_CHECK(rule.quantile >= 0 && rule.quantile < 0.5f);
  TESSERA_CHECK(rule.quantile == 0 || HasHeader(to));  // no policy uses it with other formats
  LaunchMoveTokens(stream, arena, geometry, to,
                   {{rule.clip_k, rule.clip_v}, rule.integer_offset, rule.quantile}, moves, n);
}

}  // namespace tessera::cuda
