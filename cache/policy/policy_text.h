// The text form of policies: grammar, typed parameters, exact errors.
//
//   policy    = stage *( "+" stage )
//   stage     = name [ "(" [ name "=" value *( "," name "=" value ) ] ")" ]
//   name      = lower-case letter *( lower-case letter / digit / "_" )
//   value     = 1*( letter / digit / "_" / "." / "+" / "-" )
//
// with blanks allowed between any two of these. A policy declares its parameters in a constant
// table (ParameterSpec); BindArguments turns a stage's text into checked values. Threads: safe.
// Errors: INVALID_ARGUMENT; foreign bytes are escaped in messages.
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
  double default_value;  // kChoice: index into `choices`
  double min, max;       // inclusive; kInteger: exact up to 2^53; kChoice: not used
  const char* choices;   // kChoice: "all|visual"; else ""
  const char* help;
};

// One stage as written: names and values not yet looked up.
struct PolicyStage {
  std::string name;
  std::vector<std::pair<std::string, std::string>> arguments;
};
absl::StatusOr<std::vector<PolicyStage>> ParsePolicyText(absl::string_view text);

// A stage's values, defaults filled in. `specs` must be a constant table: it is kept by reference.
class PolicyArguments {
 public:
  // INVALID_ARGUMENT for unknown and repeated parameters, wrong numbers, values out of range.
  static absl::StatusOr<PolicyArguments> Bind(const PolicyStage& stage,
                                              absl::Span<const ParameterSpec> specs);

  // By the parameter's name; CHECKs that it exists and is of that kind.
  int64_t Integer(absl::string_view name) const;
  double Real(absl::string_view name) const;
  absl::string_view Choice(absl::string_view name) const;
  bool Given(absl::string_view name) const;  // written in the text, be it the default value

  // `policy`, or `policy(a=1, b=x)` with the values that differ from their defaults, in the table's
  // order. Numbers are the shortest text that reads back as the same value.
  std::string Canonical(absl::string_view policy) const;

 private:
  explicit PolicyArguments(absl::Span<const ParameterSpec> specs);
  size_t IndexOf(absl::string_view name, ParameterSpec::Kind kind) const;

  absl::Span<const ParameterSpec> specs_;
  std::vector<double> values_;  // by spec
  std::vector<bool> given_;     // by spec
};

// "window=128, keep=0.2, scope=all": every parameter with its default.
std::string DescribeParameters(absl::Span<const ParameterSpec> specs);

// "unknown <what> '<name>'; did you mean '<nearest>'? known: a, b". The suggestion is left out when
// nothing is within half the name's length by edit distance.
std::string UnknownName(absl::string_view what, absl::string_view name,
                        absl::Span<const absl::string_view> known);

}  // namespace tessera
