// A backend that works until it does not: the n-th call of one operation fails as a device fails.
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
  int call = 1;                      // which call of it
  Kind kind = kEnd;
  bool from_start = false;  // count while the model loads too
};

// "MatMul:100:end", also hang or slow; with "+load" behind it, from_start.
absl::StatusOr<Fault> ParseFault(absl::string_view text);

// `inner` with the fault. The count begins with the first step: the first Embed or Patchify.
std::unique_ptr<Ops> MakeFaulty(std::unique_ptr<Ops> inner, const Fault& fault);

}  // namespace tessera
