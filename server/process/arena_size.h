// The size of the KV cache's arena as people give it: bytes ("48GiB"), a share of a GPU's memory
// ("85%"), or "auto". Usable as a flag's type.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct ArenaSize {
  int64_t bytes = 0;
  int percent = 0;  // 1 to 99; not both: neither is "auto"

  bool operator==(const ArenaSize&) const = default;
};

// "auto", a percentage, or as ParseByteSize, but not 0; else INVALID_ARGUMENT.
absl::StatusOr<ArenaSize> ParseArenaSize(absl::string_view text);
std::string FormatArenaSize(ArenaSize size);

// In bytes, for a device with `free_bytes` beside the model (Ops::FreeBytes). A share is of what
// `image_cache_bytes` leave of them; the rest is for the steps. "auto": 85 %, or 1 GiB of a host's
// memory. INVALID_ARGUMENT: a share of a host's memory; too little of a device's, or more than it
// has.
absl::StatusOr<int64_t> ArenaBytes(ArenaSize size, int64_t free_bytes, int64_t image_cache_bytes);

// Of an arena.
constexpr int64_t kLeastArenaBytes = int64_t{2} << 20, kMostArenaBytes = int64_t{1} << 40;

// Abseil finds these two by argument-dependent lookup.
bool AbslParseFlag(absl::string_view text, ArenaSize* size, std::string* error);
std::string AbslUnparseFlag(ArenaSize size);

}  // namespace tessera
