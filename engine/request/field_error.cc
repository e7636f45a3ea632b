#include "engine/request/field_error.h"

#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tessera {
namespace {

// absl::Status prints payloads, so this one is text that people can read: "stop_strings 2 -1 0".
constexpr char kPayloadUrl[] = "tessera.request_field";

struct Name {
  RequestField field;
  const char* text;
};
constexpr Name kNames[] = {
    {RequestField::kId, "id"},
    {RequestField::kPrompt, "prompt"},
    {RequestField::kPromptToken, "prompt_token"},
    {RequestField::kImage, "image"},
    {RequestField::kMessage, "message"},
    {RequestField::kMessageRole, "message_role"},
    {RequestField::kMessageImage, "message_image"},
    {RequestField::kTemperature, "temperature"},
    {RequestField::kTopK, "top_k"},
    {RequestField::kTopP, "top_p"},
    {RequestField::kMinP, "min_p"},
    {RequestField::kRepetitionPenalty, "repetition_penalty"},
    {RequestField::kPresencePenalty, "presence_penalty"},
    {RequestField::kFrequencyPenalty, "frequency_penalty"},
    {RequestField::kLogitBias, "logit_bias"},
    {RequestField::kMaxTokens, "max_tokens"},
    {RequestField::kMinTokens, "min_tokens"},
    {RequestField::kStopStrings, "stop_strings"},
    {RequestField::kStopTokenIds, "stop_token_ids"},
    {RequestField::kTopLogprobs, "top_logprobs"},
    {RequestField::kPolicy, "policy"},
};
static_assert(std::size(kNames) == static_cast<size_t>(RequestField::kPolicy) + 1);

}  // namespace

absl::Status RequestFieldError(const FieldViolation& violation, absl::string_view message,
                               absl::StatusCode code) {
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl,
                    absl::Cord(absl::StrCat(kNames[static_cast<size_t>(violation.field)].text, " ",
                                            violation.index, " ", violation.part, " ",
                                            violation.over_limit ? 1 : 0)));
  return status;
}

std::optional<FieldViolation> GetFieldViolation(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  const std::vector<absl::string_view> words = absl::StrSplit(text, ' ');
  FieldViolation out;
  if (words.size() != 4 || !absl::SimpleAtoi(words[1], &out.index) ||
      !absl::SimpleAtoi(words[2], &out.part)) {
    return std::nullopt;
  }
  out.over_limit = words[3] == "1";
  for (const Name& name : kNames) {
    if (words[0] != name.text) continue;
    out.field = name.field;
    return out;
  }
  return std::nullopt;
}

}  // namespace tessera
