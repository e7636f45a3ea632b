// Says whether a Status (or StatusOr) has a code and a message that contains all given parts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace tessera {

inline absl::Status StatusOf(const absl::Status& status) { return status; }
template <class T>
absl::Status StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

template <class T>
testing::AssertionResult Fails(const T& result, absl::StatusCode code,
                               const std::vector<std::string>& parts) {
  const absl::Status status = StatusOf(result);
  if (status.code() != code) {
    return testing::AssertionFailure() << "status is " << status.ToString();
  }
  for (const std::string& part : parts) {
    if (!absl::StrContains(status.message(), part)) {
      return testing::AssertionFailure() << "\"" << status.message() << "\" lacks " << part;
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace tessera
