// Says whether a Status (or StatusOr) is an error about one field of a request.
#pragma once

#include <string>
#include <vector>

#include "engine/request/field_error.h"
#include "tests/support/status_matchers.h"

namespace tessera {

// `at`: what the error must name; its over_limit is not compared.
template <class T>
testing::AssertionResult FailsAt(const T& result, const FieldViolation& at,
                                 const std::vector<std::string>& parts,
                                 absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto violation = GetFieldViolation(StatusOf(result));
  if (!violation.has_value() || violation->field != at.field || violation->index != at.index ||
      violation->part != at.part) {
    return testing::AssertionFailure() << "another field: " << StatusOf(result).ToString();
  }
  return Fails(result, code, parts);
}

}  // namespace tessera
