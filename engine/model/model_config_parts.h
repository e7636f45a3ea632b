// The sub-objects of config.json: the text model and the vision tower, each with its family's
// defaults, limits and divisibility rules. Used by model_config.cc only.
//
// `where` names the object in errors ("config.json: text_config"). Threads: functions only, safe.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "engine/model/model_config.h"

namespace tessera {

constexpr int kMaxVocab = 1 << 20;

absl::Status ReadTextConfig(const nlohmann::json& json, absl::string_view where, LlamaConfig* text);
// Keys that are absent keep the values already in `*vision`.
absl::Status ReadVisionConfig(const nlohmann::json& json, absl::string_view where,
                              ClipConfig* vision);
// Whether configurations of this text family mean bos 1 and eos 2 when they do not say.
bool HasDefaultTokens(absl::string_view model_type);
// "gelu" (erf form) or "quick_gelu"; UNIMPLEMENTED for others.
absl::StatusOr<Activation> ParseGelu(absl::string_view where, absl::string_view name);

}  // namespace tessera
