// Audits the whole KV cache: every page must be held by exactly the owners that claim it.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cache/pages/arena.h"
#include "cache/prefix_cache.h"
#include "cache/sequence_cache.h"

namespace tessera {

// Runs CheckIntegrity of every part, then compares each page's reference count with the number of
// sequences and prefix blocks that hold the page. Returns INTERNAL if they differ, or if a page is
// in use and has no holder (a leak).
//
// `index` may be null. `sequences` must list every sequence that lives on the arena. Takes time
// linear in the number of pages: for tests and debug builds.
absl::Status AuditCache(const Arena& arena, const PrefixCache* index,
                        absl::Span<const SequenceCache* const> sequences);

}  // namespace tessera
