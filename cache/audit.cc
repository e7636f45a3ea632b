#include "cache/audit.h"

#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {

absl::Status AuditCache(const Arena& arena, const PrefixCache* index,
                        absl::Span<const SequenceCache* const> sequences) {
  RETURN_IF_ERROR(arena.CheckIntegrity());
  std::unordered_map<PageId, int> holders;
  if (index != nullptr) {
    RETURN_IF_ERROR(index->CheckIntegrity());
    for (PageId page : index->AllPages()) ++holders[page];
  }
  for (const SequenceCache* sequence : sequences) {
    RETURN_IF_ERROR(sequence->CheckIntegrity());
    for (PageId page : sequence->retired()) ++holders[page];
    for (int layer = 0; layer < sequence->layers(); ++layer) {
      for (const Run& run : sequence->runs(layer)) {
        for (PageId page : run.pages) ++holders[page];
        if (run.header != kNoPage) ++holders[run.header];
      }
    }
  }
  int64_t bytes = 0;
  for (const auto& [page, count] : holders) {
    if (arena.RefCount(page) != count) {
      return absl::InternalError(absl::StrCat("page ", page, ": ", arena.RefCount(page),
                                              " references, ", count, " holders"));
    }
    bytes += arena.page_bytes(arena.FormatOf(page));
  }
  if (bytes != arena.used_bytes()) {
    return absl::InternalError(
        absl::StrCat(arena.used_bytes() - bytes, " bytes of pages are in use but have no holder"));
  }
  return absl::OkStatus();
}

}  // namespace tessera
