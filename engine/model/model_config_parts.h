// Reads the sub-objects of config.json: the text model and the vision tower, each with its family's
// defaults, limits and divisibility rules. Private to model_config.cc.
//
// `where` names the object in errors ("config.json: text_config"). Threads: safe; functions only.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "engine/model/model_config.h"

namespace tessera {

constexpr int kMaxVocab = 1 << 20;

absl::Status ReadTextConfig(const nlohmann::json& json, absl::string_view where, LlamaConfig* text);
// Absent keys keep the values that `*vision` has.
absl::Status ReadVisionConfig(const nlohmann::json& json, absl::string_view where,
                              ClipConfig* vision);
// True if the text family's default ids are bos 1 and eos 2.
bool HasDefaultTokens(absl::string_view model_type);
// Accepts "gelu" (erf form) and "quick_gelu"; UNIMPLEMENTED for others.
absl::StatusOr<Activation> ParseGelu(absl::string_view where, absl::string_view name);

}  // namespace tessera
