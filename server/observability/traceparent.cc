#include "server/observability/traceparent.h"

namespace tessera {
namespace {

// version "-" trace-id "-" parent-id "-" flags
constexpr size_t kTrace = 3, kTraceLength = 32, kParent = 36, kParentLength = 16, kLength = 55;

}  // namespace

std::string Traceparent(absl::string_view value) {
  if (value.size() < kLength) return "";
  // Later versions may say more, behind another dash.
  if (value.size() > kLength && (value[kLength] != '-' || value.substr(0, 2) == "00")) return "";
  value = value.substr(0, kLength);
  for (size_t i = 0; i < kLength; ++i) {
    const char c = value[i];
    const bool dash = i == kTrace - 1 || i == kParent - 1 || i == kLength - 3;
    if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return "";
  }
  const auto zeros = [&](size_t begin, size_t n) {
    return value.substr(begin, n).find_first_not_of('0') == absl::string_view::npos;
  };
  if (value.substr(0, 2) == "ff" || zeros(kTrace, kTraceLength) || zeros(kParent, kParentLength)) {
    return "";
  }
  return std::string(value);
}

}  // namespace tessera
