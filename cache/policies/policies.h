// What a method's file in this folder hands to the table of cache/policy.cc: one function each.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/policy.h"
#include "cache/policy_text.h"

namespace tessera {

// One row of the table. Everything it points to is constant and lives for ever.
struct PolicyEntry {
  const char* name;
  const char* summary;  // one sentence
  absl::Span<const ParameterSpec> parameters;
  // May refuse combinations of values that are right one by one (INVALID_ARGUMENT).
  absl::StatusOr<std::shared_ptr<const Policy>> (*make)(const PolicyArguments& arguments);
};

PolicyEntry NonePolicy();

}  // namespace tessera
