// Writes a safetensors file tensor by tensor, so that the file may be larger than memory.
// engine/weights/safetensors.h describes the layout.
//
// Threads: one. Errors name the path; after an error the file is unusable.
#pragma once

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/weights/safetensors.h"

namespace tessera {

class SafetensorsWriter {
 public:
  // Replaces the file and writes its header. `tensors` are in the order of Add. Sets their begin
  // and end: an "F32" tensor has the bytes of its shape, another one has the given `end - begin`
  // bytes.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<SafetensorsEntry> tensors);

  // Writes the bytes of the next tensor. REQUIRES: as many bytes as its entry says.
  absl::Status Add(absl::string_view bytes);
  // Completes the file. REQUIRES: every tensor was added.
  absl::Status Close();

 private:
  SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> tensors);
  absl::Status Check();  // returns an error if a write has failed

  std::string path_;
  std::ofstream file_;
  std::vector<SafetensorsEntry> tensors_;
  size_t next_ = 0;
};

}  // namespace tessera
