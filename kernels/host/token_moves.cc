#include "kernels/host/token_moves.h"

#include "kernels/layout/quantize.h"

namespace tessera {

void CheckTokenMoves(const KvGeometry& geometry, Format to, const QuantRule& rule,
                     const TokenMove* moves, int64_t n) {
  TESSERA_CHECK(geometry.kv_heads > 0 && geometry.head_dim > 0 && geometry.head_dim % 8 == 0);
  TESSERA_CHECK(static_cast<int>(to) < kNumFormats && HoldsTokens(to));
  TESSERA_CHECK(rule.clip_k > 0 && rule.clip_k <= 1 && rule.clip_v > 0 && rule.clip_v <= 1);
  TESSERA_CHECK(rule.quantile >= 0 && rule.quantile < 0.5f);
  const auto tokens = static_cast<uint32_t>(PageTokens(to));
  const bool whole = FillsWholePages(to);
  TESSERA_CHECK(n >= 0 && (!whole || n % tokens == 0));
  for (int64_t i = 0; i < n; ++i) {
    const KvSlot &from = moves[i].from, &slot = moves[i].to;
    TESSERA_CHECK(from.page != kNoPage && slot.page != kNoPage && from.page != slot.page);
    TESSERA_CHECK(from.slot < static_cast<uint32_t>(PageTokens(Format::kRaw16)));
    TESSERA_CHECK(slot.slot < tokens);
    TESSERA_CHECK((moves[i].header != kNoPage) == HasHeader(to));
    if (!whole) continue;
    TESSERA_CHECK(slot.slot == i % tokens && slot.page == moves[i - slot.slot].to.page);
  }
}

int64_t SegmentEnd(const TokenMove* moves, int64_t begin, int64_t n) {
  int64_t end = begin + 1;
  while (end < n && moves[end].header == moves[begin].header) ++end;
  return end;
}

}  // namespace tessera
