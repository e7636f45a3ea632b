// What became of fetching one picture: a metric's label, and the caller's error.
#pragma once

#include <string>
#include <vector>

namespace tessera {

enum class FetchOutcome {
  kOk,
  kRefused,      // by the rules: a host, an address or a redirect
  kUnresolved,   // its name has no address
  kUnreachable,  // no connection
  kUntrusted,    // TLS: no certificate that proves the host, or no handshake at all
  kStatus,       // an HTTP status other than 200
  kTooLarge,
  kBroken,    // no HTTP, or cut short
  kTimeout,   // of the fetch
  kCancelled  // by the caller, his deadline or the server's end
};

// The label's value: "ok", "refused", ...
const std::string& FetchOutcomeName(FetchOutcome outcome);
const std::vector<std::string>& FetchOutcomeNames();  // all, in the order above

}  // namespace tessera
