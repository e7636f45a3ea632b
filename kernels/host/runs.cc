#include "kernels/host/runs.h"

namespace tessera {

LogitMap CheckRuns(const KvLayerView& kv, int64_t s, int64_t rows) {
  const KvRun *begin = kv.runs + kv.run_begin[s], *end = kv.runs + kv.run_begin[s + 1];
  TESSERA_CHECK(begin < end);
  LogitMap map;
  for (const KvRun* run = begin; run < end; ++run) {
    TESSERA_CHECK(run->tokens > 0 && HoldsTokens(run->format));
    TESSERA_CHECK((run->header != kNoPage) == HasHeader(run->format));
    if (run->map.identity()) continue;
    TESSERA_CHECK(run->map.raise >= 0 && run->map.lower >= 0);
    TESSERA_CHECK(map.identity() || (map.raise == run->map.raise && map.lower == run->map.lower));
    map = run->map;
  }
  const KvRun& last = end[-1];
  TESSERA_CHECK(rows == 1 ||
                (last.format == Format::kRaw16 && last.tokens >= rows && last.map.identity()));
  return map;
}

}  // namespace tessera
