#include "cache/run.h"

#include <cstddef>

namespace tessera {

void AppendMoves(const Run& open, absl::Span<const int32_t> indices, Run* to, MoveBatch* batch) {
  constexpr int kOpenTokens = PageTokens(Format::kRaw16);
  const int32_t page_tokens = PageTokens(to->format);
  int32_t page = to->tokens / page_tokens, slot = to->tokens % page_tokens;
  const size_t moves = batch->moves.size(), listed = to->listed.size(), n = indices.size();
  batch->moves.resize(moves + n);
  to->listed.resize(listed + n);
  for (size_t i = 0; i < n; ++i) {
    const auto index = static_cast<uint32_t>(indices[i]);
    batch->moves[moves + i] = {{open.pages[index / kOpenTokens], index % kOpenTokens},
                               {to->pages[page], static_cast<uint32_t>(slot)},
                               to->header};
    to->listed[listed + i] = open.Position(indices[i]);
    if (++slot == page_tokens) {
      slot = 0;
      ++page;
    }
  }
  to->tokens += static_cast<int32_t>(n);
}

}  // namespace tessera
