// The size of the KV-cache arena as operators give it: bytes ("48GiB"), a share of a GPU's memory
// ("85%"), or "auto". Usable as a flag's type.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct ArenaSize {
  int64_t bytes = 0;
  int percent = 0;  // 1 to 99. Only one of the two is set; neither: "auto"

  bool operator==(const ArenaSize&) const = default;
};

// Parses "auto", a percentage, or what ParseByteSize takes except 0; else INVALID_ARGUMENT.
absl::StatusOr<ArenaSize> ParseArenaSize(absl::string_view text);
std::string FormatArenaSize(ArenaSize size);

// Returns the size in bytes. `free_bytes`: the device's memory without the model's
// (Ops::FreeBytes); 0 for a host. A share is a share of `free_bytes` - `image_cache_bytes`; the
// rest is for the steps. "auto" is 85 %, or 1 GiB on a host.
// INVALID_ARGUMENT: a share of a host's memory, or too little or too much of a device's.
absl::StatusOr<int64_t> ArenaBytes(ArenaSize size, int64_t free_bytes, int64_t image_cache_bytes);

// Bounds of an arena's size.
constexpr int64_t kLeastArenaBytes = int64_t{2} << 20, kMostArenaBytes = int64_t{1} << 40;

// Abseil finds these two by argument-dependent lookup.
bool AbslParseFlag(absl::string_view text, ArenaSize* size, std::string* error);
std::string AbslUnparseFlag(ArenaSize size);

}  // namespace tessera
