// Errors of a request that name the wrong field by type.
//
// The engine knows no wire format. Its errors carry one of the fields below as a payload of the
// absl::Status, and a message that says what is wrong with it. Front ends translate the field into
// the name that their clients use. Threads: safe.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera {

// A field of Request or of PromptInput.
enum class RequestField {
  kId,
  kPrompt,        // the prompt as a whole
  kPromptToken,   // PromptInput::ids[index]
  kImage,         // PromptInput::images[index]
  kMessage,       // PromptInput::messages[index]
  kMessageRole,   // PromptInput::messages[index].role
  kMessageImage,  // PromptInput::messages[index].parts[part]
  kTemperature,
  kTopK,
  kTopP,
  kMinP,
  kRepetitionPenalty,
  kPresencePenalty,
  kFrequencyPenalty,
  kLogitBias,
  kMaxTokens,
  kMinTokens,
  kStopStrings,  // the list, or its element `index`
  kStopTokenIds,
  kTopLogprobs,
  kPolicy,
};

struct FieldViolation {
  RequestField field = RequestField::kPrompt;
  int index = -1;  // -1: the field as a whole
  int part = -1;   // of kMessageImage
  // True if the value is well formed but exceeds what this model or server can hold.
  bool over_limit = false;
};

// Returns an error with `code` and `message` that carries `violation`.
absl::Status RequestFieldError(const FieldViolation& violation, absl::string_view message,
                               absl::StatusCode code = absl::StatusCode::kInvalidArgument);

// Returns the violation that `status` carries, or nothing.
std::optional<FieldViolation> GetFieldViolation(const absl::Status& status);

}  // namespace tessera
