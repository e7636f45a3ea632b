// W3C Trace Context: the header, or gRPC metadata, that says which trace a request belongs to
// (https://www.w3.org/TR/trace-context/). Logs have it; spans are the proxies' and clients'.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// `value` as far as version 00 has it, if it is well-formed, else "": what anybody may send does
// not go into the log unseen. Threads: safe.
std::string Traceparent(absl::string_view value);

}  // namespace tessera
