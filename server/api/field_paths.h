// The proto path of every field that the engine's errors can name.
//
// The table in field_paths.cc is the only place that knows both sides. Threads: safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/field_error.h"

namespace tessera {

// How the client gave the prompt, on which the paths of its parts depend.
struct PromptPaths {
  enum class Form { kContent, kMessages, kTokenized };
  Form form = Form::kContent;
  std::vector<std::string> images;  // paths in the order of PromptInput::images
};

// Returns "stopping.stop[2]", "messages[1].role", "content[3].image" and the like.
std::string ProtoPath(const FieldViolation& violation, const PromptPaths& prompt);

// Returns an error of the engine as one of the client's: the message starts with the proto path,
// and the details name it. Returns errors that name no field, and OK, unchanged.
absl::Status WithProtoPath(const absl::Status& status, const PromptPaths& prompt);

}  // namespace tessera
