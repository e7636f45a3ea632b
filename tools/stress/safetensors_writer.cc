#include "tools/stress/safetensors_writer.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "nlohmann/json.hpp"

namespace tessera {
namespace {

// The data starts at a multiple of this, so that readers can map tensors without copying.
constexpr size_t kAlignment = 64;

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> tensors)
    : path_(path), file_(path, std::ios::binary | std::ios::trunc), tensors_(std::move(tensors)) {}

absl::Status SafetensorsWriter::Check() {
  if (file_.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path_, ": ", std::strerror(errno)));
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<SafetensorsEntry> tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (SafetensorsEntry& tensor : tensors) {
    int64_t bytes = tensor.end - tensor.begin;
    if (tensor.dtype == "F32") {
      bytes = 4;
      for (const int64_t n : tensor.shape) bytes *= n;
    }
    tensor.begin = offset;
    tensor.end = offset += bytes;
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = header.dump();
  text.append(RoundUp(8 + text.size(), kAlignment) - 8 - text.size(), ' ');
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(uint64_t{text.size()} >> (8 * i) & 0xff);
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, std::move(tensors)));
  writer->file_ << length << text;
  RETURN_IF_ERROR(writer->Check());
  return writer;
}

absl::Status SafetensorsWriter::Add(absl::string_view bytes) {
  TESSERA_CHECK(next_ < tensors_.size());
  const SafetensorsEntry& tensor = tensors_[next_++];
  TESSERA_CHECK(static_cast<int64_t>(bytes.size()) == tensor.end - tensor.begin);
  file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return Check();
}

absl::Status SafetensorsWriter::Close() {
  TESSERA_CHECK(next_ == tensors_.size());
  file_.close();
  return Check();
}

}  // namespace tessera
