#include "engine/weights/safetensors.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/json.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxNameBytes = 512;

absl::Status Invalid(absl::string_view what, absl::string_view tensor, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": tensor \"", tensor.substr(0, kMaxNameBytes), "\": ", why));
}

// Returns the bytes of one element; 0 for an unknown dtype.
int64_t ElementBytes(absl::string_view dtype) {
  static constexpr std::pair<const char*, int> kSizes[] = {
      {"F64", 8}, {"I64", 8},  {"U64", 8},     {"C64", 8},    {"F32", 4}, {"I32", 4},
      {"U32", 4}, {"F16", 2},  {"I16", 2},     {"BF16", 2},   {"U16", 2}, {"I8", 1},
      {"U8", 1},  {"BOOL", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}};
  for (const auto& [name, bytes] : kSizes) {
    if (dtype == name) return bytes;
  }
  return 0;
}

// Reads an integer in [0, 2^62), so that the sum of two cannot overflow.
bool ReadSize(const Json& value, int64_t* out) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= (uint64_t{1} << 62)) return false;
  *out = value.get<int64_t>();
  return true;
}

absl::Status ReadEntry(const Json& json, absl::string_view what, SafetensorsEntry* entry) {
  const std::string& name = entry->name;
  if (name.empty() || name.size() > kMaxNameBytes)
    return Invalid(what, name, "the name is empty or longer than 512 bytes");
  const Json* dtype = FindMember(json, "dtype");
  const Json* shape = FindMember(json, "shape");
  const Json* range = FindMember(json, "data_offsets");
  if (!dtype || !dtype->is_string() || !shape || !shape->is_array() || !range ||
      !range->is_array() || range->size() != 2) {
    return Invalid(what, name, "it needs dtype, shape and data_offsets");
  }
  entry->dtype = dtype->get<std::string>();
  if (entry->dtype.size() > 32) return Invalid(what, name, "bad dtype");
  if (shape->size() > kMaxRank) {
    return Invalid(what, name, absl::StrCat("more than ", kMaxRank, " dimensions"));
  }
  if (!ReadSize((*range)[0], &entry->begin) || !ReadSize((*range)[1], &entry->end) ||
      entry->begin > entry->end) {
    return Invalid(what, name, "bad data_offsets");
  }
  bool empty = false;
  int64_t elements = 1;
  for (const Json& value : *shape) {
    int64_t dim;
    if (!ReadSize(value, &dim)) return Invalid(what, name, "bad shape");
    entry->shape.push_back(dim);
    empty |= dim == 0;
    // The product skips zeros, so that [huge, huge, 0] overflows too.
    if (dim != 0 && __builtin_mul_overflow(elements, dim, &elements)) {
      return Invalid(what, name, "shape overflows");
    }
  }
  const int64_t element_bytes = ElementBytes(entry->dtype);
  int64_t bytes = 0;
  if (!empty && element_bytes > 0 && __builtin_mul_overflow(elements, element_bytes, &bytes)) {
    return Invalid(what, name, "shape overflows");
  }
  if (element_bytes > 0 && bytes != entry->end - entry->begin) {
    return Invalid(what, name,
                   absl::StrCat("shape needs ", bytes, " bytes, data_offsets give ",
                                entry->end - entry->begin));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensors(absl::string_view file, absl::string_view what) {
  if (file.size() < 8) return absl::DataLossError(absl::StrCat(what, ": truncated"));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | static_cast<uint8_t>(file[i]);
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": header of ", header_bytes, " bytes, more than ", kMaxHeaderBytes));
  }
  if (header_bytes > file.size() - 8) {
    return absl::DataLossError(absl::StrCat(what, ": truncated: header of ", header_bytes,
                                            " bytes in a file of ", file.size()));
  }
  ASSIGN_OR_RETURN(const Json json, ParseJson(file.substr(8, header_bytes), what,
                                              {.max_bytes = kMaxHeaderBytes, .max_depth = 4}));
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(what, ": not an object"));

  SafetensorsHeader header;
  header.data_offset = 8 + static_cast<int64_t>(header_bytes);
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") continue;
    SafetensorsEntry entry;
    entry.name = name;
    RETURN_IF_ERROR(ReadEntry(value, what, &entry));
    header.tensors.push_back(std::move(entry));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t next = 0;
  for (const SafetensorsEntry& entry : header.tensors) {
    if (entry.begin != next) {
      return Invalid(
          what, entry.name,
          absl::StrCat("data begins at ", entry.begin, ", expected ", next, " (overlap or hole)"));
    }
    next = entry.end;
  }
  const int64_t data_bytes = static_cast<int64_t>(file.size()) - header.data_offset;
  if (next > data_bytes) {
    return absl::DataLossError(absl::StrCat(what, ": truncated: tensors need ", next,
                                            " bytes of data, the file has ", data_bytes));
  }
  if (next < data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", data_bytes - next, " bytes of data belong to no tensor"));
  }
  return header;
}

}  // namespace tessera
