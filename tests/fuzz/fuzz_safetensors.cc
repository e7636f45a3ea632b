// Fuzzes the parser of safetensors headers. Any bytes give an error, or a header whose ranges lie
// inside the file and do not overlap.
#include "base/base.h"
#include "engine/weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view file(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensors(file, "fuzz");
  if (!header.ok()) {
    TESSERA_CHECK(header.status().code() == absl::StatusCode::kInvalidArgument ||
                  header.status().code() == absl::StatusCode::kDataLoss);
    return 0;
  }
  int64_t next = 0;
  for (const SafetensorsEntry& entry : header->tensors) {
    TESSERA_CHECK(entry.begin == next && entry.end >= entry.begin);
    next = entry.end;
    int64_t elements = 1;
    for (int64_t dim : entry.shape) TESSERA_CHECK(dim >= 0);
    for (int64_t dim : entry.shape) {
      if (dim == 0) elements = 0;
    }
    for (int64_t dim : entry.shape) {
      TESSERA_CHECK(!__builtin_mul_overflow(elements, dim, &elements));
    }
  }
  TESSERA_CHECK(header->data_offset >= 8);
  TESSERA_CHECK(header->data_offset + next == static_cast<int64_t>(size));
  return 0;
}
