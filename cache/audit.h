// The audit of the whole cache: that every page is held by exactly those who say so.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cache/pages/arena.h"
#include "cache/prefix_cache.h"
#include "cache/sequence_cache.h"

namespace tessera {

// Runs the CheckIntegrity of every part, then proves that each page's reference count is the number
// of sequences and index blocks that hold it, and that no page is in use without a holder (a leak).
// `index` may be null. `sequences` are all that live on the arena. For tests and debug builds.
absl::Status AuditCache(const Arena& arena, const PrefixCache* index,
                        absl::Span<const SequenceCache* const> sequences);

}  // namespace tessera
