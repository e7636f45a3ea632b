// The text form of policies: grammar, typed parameters, exact errors.
//
//   policy    = stage *( "+" stage )
//   stage     = name [ "(" [ name "=" value *( "," name "=" value ) ] ")" ]
//   name      = lower-case letter *( lower-case letter / digit / "_" )
//   value     = 1*( letter / digit / "_" / "." / "+" / "-" )
//
// Blanks are allowed between any two of these. A policy declares its parameters in a constant table
// of ParameterSpec; PolicyArguments::Bind turns a stage's text into checked values. Threads: safe.
// Errors: INVALID_ARGUMENT; bytes of the request are escaped in messages.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

constexpr size_t kMaxPolicyTextBytes = 256;

struct ParameterSpec {
  enum class Kind { kInteger, kReal, kChoice };
  const char* name;
  Kind kind;
  double default_value;  // kChoice: an index into `choices`
  double min, max;       // inclusive; kInteger: exact up to 2^53; kChoice: unused
  const char* choices;   // kChoice: "all|visual"; else ""
  const char* help;
};

// One stage as written. Names and values are not yet looked up.
struct PolicyStage {
  std::string name;
  std::vector<std::pair<std::string, std::string>> arguments;
};
absl::StatusOr<std::vector<PolicyStage>> ParsePolicyText(absl::string_view text);

// A stage's checked values, with defaults filled in. Keeps a reference to `specs`, which must be a
// constant table.
class PolicyArguments {
 public:
  // Returns INVALID_ARGUMENT for unknown and repeated parameters, malformed numbers and values out
  // of range.
  static absl::StatusOr<PolicyArguments> Bind(const PolicyStage& stage,
                                              absl::Span<const ParameterSpec> specs);

  // Return a parameter's value. CHECK that the parameter exists and has that kind.
  int64_t Integer(absl::string_view name) const;
  double Real(absl::string_view name) const;
  absl::string_view Choice(absl::string_view name) const;
  bool Given(
      absl::string_view name) const;  // true if written in the text, even with the default value

  // Returns `policy`, or `policy(a=1, b=x)` with the values that differ from their defaults, in the
  // table's order. A number is the shortest text that parses to the same value.
  std::string Canonical(absl::string_view policy) const;

 private:
  explicit PolicyArguments(absl::Span<const ParameterSpec> specs);
  size_t IndexOf(absl::string_view name, ParameterSpec::Kind kind) const;

  absl::Span<const ParameterSpec> specs_;
  std::vector<double> values_;  // by spec
  std::vector<bool> given_;     // by spec
};

// Returns every parameter with its default: "window=128, keep=0.2, scope=all".
std::string DescribeParameters(absl::Span<const ParameterSpec> specs);

// Returns "unknown <what> '<name>'; did you mean '<nearest>'? known: a, b". Leaves the suggestion
// out if every known name is further than half the name's length away by edit distance.
std::string UnknownName(absl::string_view what, absl::string_view name,
                        absl::Span<const absl::string_view> known);

}  // namespace tessera
