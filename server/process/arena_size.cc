#include "server/process/arena_size.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/base.h"
#include "base/byte_size.h"

namespace tessera {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int kAutoPercent = 85;
constexpr int64_t kAutoBytes = int64_t{1} << 30;  // other programs use a host's memory too

}  // namespace

absl::StatusOr<ArenaSize> ParseArenaSize(absl::string_view text) {
  if (text == "auto") return ArenaSize();
  if (absl::string_view digits = text; absl::ConsumeSuffix(&digits, "%")) {
    int percent = 0;
    if (absl::SimpleAtoi(digits, &percent) && 1 <= percent && percent <= 99) {
      return ArenaSize{.percent = percent};
    }
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a share: want 1% to 99%"));
  }
  ASSIGN_OR_RETURN(const int64_t bytes, ParseByteSize(text));
  if (bytes == 0) return absl::InvalidArgumentError("an arena of 0 bytes holds no request");
  return ArenaSize{.bytes = bytes};
}

std::string FormatArenaSize(ArenaSize size) {
  if (size.bytes > 0) return FormatByteSize(size.bytes);
  return size.percent > 0 ? absl::StrCat(size.percent, "%") : "auto";
}

absl::StatusOr<int64_t> ArenaBytes(ArenaSize size, int64_t free_bytes, int64_t image_cache_bytes) {
  const auto wrong = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_cache_bytes=", FormatArenaSize(size), ": ", why));
  };
  if (free_bytes == 0) {
    if (size.percent == 0) return size.bytes > 0 ? size.bytes : kAutoBytes;
    return wrong("this device has no memory of its own; give bytes");
  }
  const int64_t left = free_bytes - image_cache_bytes;
  const int percent = size.percent > 0 ? size.percent : kAutoPercent;
  const int64_t bytes = size.bytes > 0 ? size.bytes : left / 100 * percent / kMiB * kMiB;
  if (bytes < kLeastArenaBytes || bytes > left) {
    return wrong(absl::StrCat(
        "with the model loaded, the device has ", FormatByteSize(free_bytes / kMiB * kMiB),
        " free, of which --image_cache_bytes=", FormatByteSize(image_cache_bytes),
        " are set aside"));
  }
  return std::min(bytes, kMostArenaBytes);
}

bool AbslParseFlag(absl::string_view text, ArenaSize* size, std::string* error) {
  absl::StatusOr<ArenaSize> parsed = ParseArenaSize(text);
  if (!parsed.ok()) {
    *error = std::string(parsed.status().message());
    return false;
  }
  *size = *parsed;
  return true;
}

std::string AbslUnparseFlag(ArenaSize size) { return FormatArenaSize(size); }

}  // namespace tessera
