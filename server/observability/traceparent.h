// The W3C Trace Context of a request (https://www.w3.org/TR/trace-context/), from an HTTP header or
// gRPC metadata. It goes into the log; proxies and clients record the spans.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// Returns the fields of `value` that version 00 has, or "" if it is malformed: any caller may send
// it, so it must not reach the log unchecked. Threads: safe.
std::string Traceparent(absl::string_view value);

}  // namespace tessera
