// Writes a safetensors file (safetensors.h has the layout), tensor after tensor, so that a file may
// be larger than memory.
//
// Threads: one thread. Errors name the path; after one the file is of no use.
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
  // Replaces the file and writes its header. `tensors` are in the order of Add; begin and end are
  // filled here, from dtype ("F32", or as given with `end - begin` bytes) and shape.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<SafetensorsEntry> tensors);

  // The next tensor's bytes. REQUIRES: as many as its entry says.
  absl::Status Add(absl::string_view bytes);
  // After the last one.
  absl::Status Close();

 private:
  SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> tensors);
  absl::Status Check();  // that what was written arrived

  std::string path_;
  std::ofstream file_;
  std::vector<SafetensorsEntry> tensors_;
  size_t next_ = 0;
};

}  // namespace tessera
