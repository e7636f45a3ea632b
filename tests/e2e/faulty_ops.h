// A backend in which the n-th call of one operation fails like a device.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"

namespace tessera {

struct Fault {
  enum Kind { kEnd, kHang, kSlow };  // ends the process; never returns; takes a second
  std::string op;                    // a method of Ops
  int call = 1;                      // the call that fails
  Kind kind = kEnd;
  bool from_start = false;  // also count calls while the model loads
};

// Parses "MatMul:100:end"; the kind may also be hang or slow. A suffix "+load" sets from_start.
absl::StatusOr<Fault> ParseFault(absl::string_view text);

// Returns `inner` with the fault. Counts from the first step, which is the first Embed or Patchify.
std::unique_ptr<Ops> MakeFaulty(std::unique_ptr<Ops> inner, const Fault& fault);

}  // namespace tessera
