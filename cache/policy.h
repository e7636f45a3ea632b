// A KV policy: the method that decides which tokens stay, and at how many bits.
//
// Text form (flag, request field, metrics label, benchmark row): `name`, `name(key=value, ...)`,
// and later `select(...)+store(...)`. Parsing is exact (policy_text.h has the grammar): an unknown
// name or parameter is an error that lists what exists and suggests the nearest. Today's table has
// one entry, `none`: every token at 16 bit; the methods follow as one file each in cache/policies/
// and one line in the table of policy.cc. Threads: immutable after parsing, safe. Errors:
// INVALID_ARGUMENT, printable whatever the text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/page_layout.h"

namespace tessera {

class Policy {
 public:
  virtual ~Policy() = default;
  // The canonical text form, with every parameter that differs from its default. Parses to an equal
  // policy.
  virtual std::string Text() const = 0;
  // Exact page bytes that a sequence of `tokens` (text and vision together) holds at its peak.
  virtual int64_t PeakBytes(int64_t tokens, const KvGeometry& geometry) const = 0;
};

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text);

struct PolicyInfo {
  std::string name;
  std::string parameters;  // "" or "keep=0.2, ..." with defaults, for --help and docs
  std::string summary;
};
std::vector<PolicyInfo> PolicyTable();

}  // namespace tessera
