#include "server/observability/fetch_outcome.h"

namespace tessera {

const std::vector<std::string>& FetchOutcomeNames() {
  static const std::vector<std::string> kNames = {
      "ok",     "refused",   "unresolved", "unreachable", "untrusted",
      "status", "too_large", "broken",     "timeout",     "cancelled"};
  return kNames;
}

const std::string& FetchOutcomeName(FetchOutcome outcome) {
  return FetchOutcomeNames()[static_cast<size_t>(outcome)];
}

}  // namespace tessera
