// The outcome of fetching one image: a metric's label, and the reason of the caller's error.
#pragma once

#include <string>
#include <vector>

namespace tessera {

enum class FetchOutcome {
  kOk,
  kRefused,      // the rules forbid a host, an address or a redirect
  kUnresolved,   // the host's name has no address
  kUnreachable,  // no connection
  kUntrusted,    // TLS: no certificate that proves the host, or no handshake
  kStatus,       // an HTTP status other than 200
  kTooLarge,
  kBroken,    // not HTTP, or truncated
  kTimeout,   // the fetch took too long
  kCancelled  // by the caller, its deadline or the server's shutdown
};

// Returns the label's value: "ok", "refused", ...
const std::string& FetchOutcomeName(FetchOutcome outcome);
const std::vector<std::string>& FetchOutcomeNames();  // all, in the order above

}  // namespace tessera
