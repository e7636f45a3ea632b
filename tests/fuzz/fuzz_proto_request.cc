// Fuzzes the conversion of a GenerateRequest that is parsed from any bytes.
#include <cstddef>
#include <cstdint>
#include <limits>

#include "tests/fuzz/fuzzed_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > static_cast<size_t>(std::numeric_limits<int>::max())) return 0;
  tessera::v1::GenerateRequest request;
  if (request.ParseFromArray(data, static_cast<int>(size))) tessera::ConvertAndCheck(request);
  return 0;
}
