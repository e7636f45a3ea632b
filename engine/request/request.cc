#include "engine/request/request.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/base.h"
#include "engine/request/field_error.h"

namespace tessera {
namespace {

absl::Status Invalid(RequestField field, absl::string_view must, absl::string_view got,
                     int index = -1) {
  return RequestFieldError({.field = field, .index = index},
                           absl::StrCat("must be ", must, ", got ", got));
}

// Comparisons are written so that NaN fails them.
absl::Status CheckSampling(const SamplingParams& p) {
  if (!(p.temperature >= 0 && p.temperature <= 100)) {
    return Invalid(RequestField::kTemperature, "within [0, 100]", absl::StrCat(p.temperature));
  }
  if (p.top_k < 0) return Invalid(RequestField::kTopK, "0 (off) or larger", absl::StrCat(p.top_k));
  if (!(p.top_p > 0 && p.top_p <= 1)) {
    return Invalid(RequestField::kTopP, "within (0, 1]", absl::StrCat(p.top_p));
  }
  if (!(p.min_p >= 0 && p.min_p < 1)) {
    return Invalid(RequestField::kMinP, "within [0, 1)", absl::StrCat(p.min_p));
  }
  if (!(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty))) {
    return Invalid(RequestField::kRepetitionPenalty, "finite and larger than 0",
                   absl::StrCat(p.repetition_penalty));
  }
  if (!(std::fabs(p.presence_penalty) <= 2)) {
    return Invalid(RequestField::kPresencePenalty, "within [-2, 2]",
                   absl::StrCat(p.presence_penalty));
  }
  if (!(std::fabs(p.frequency_penalty) <= 2)) {
    return Invalid(RequestField::kFrequencyPenalty, "within [-2, 2]",
                   absl::StrCat(p.frequency_penalty));
  }
  if (p.logit_bias.size() > kMaxLogitBiases) {
    return Invalid(RequestField::kLogitBias, absl::StrCat("at most ", kMaxLogitBiases, " tokens"),
                   absl::StrCat(p.logit_bias.size()));
  }
  for (const auto& [id, bias] : p.logit_bias) {
    if (!(std::fabs(bias) <= 100)) {
      return Invalid(RequestField::kLogitBias, "within [-100, 100]", absl::StrCat(bias));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStop(const StopParams& p) {
  if (p.max_tokens <= 0) {
    return Invalid(RequestField::kMaxTokens, "larger than 0", absl::StrCat(p.max_tokens));
  }
  if (p.min_tokens < 0 || p.min_tokens > p.max_tokens) {
    return Invalid(RequestField::kMinTokens,
                   absl::StrCat("within [0, max_tokens = ", p.max_tokens, "]"),
                   absl::StrCat(p.min_tokens));
  }
  if (p.strings.size() > kMaxStopStrings) {
    return Invalid(RequestField::kStopStrings,
                   absl::StrCat("at most ", kMaxStopStrings, " strings"),
                   absl::StrCat(p.strings.size()));
  }
  for (size_t i = 0; i < p.strings.size(); ++i) {
    const size_t bytes = p.strings[i].size();
    if (bytes == 0 || bytes > kMaxStopStringBytes) {
      return Invalid(RequestField::kStopStrings,
                     absl::StrCat("1 to ", kMaxStopStringBytes, " bytes long"), absl::StrCat(bytes),
                     static_cast<int>(i));
    }
  }
  if (p.token_ids.size() > kMaxStopIds) {
    return Invalid(RequestField::kStopTokenIds, absl::StrCat("at most ", kMaxStopIds, " ids"),
                   absl::StrCat(p.token_ids.size()));
  }
  for (size_t i = 0; i < p.token_ids.size(); ++i) {
    if (p.token_ids[i] >= 0) continue;
    return Invalid(RequestField::kStopTokenIds, "0 or larger", absl::StrCat(p.token_ids[i]),
                   static_cast<int>(i));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const SamplingParams& sampling, const StopParams& stop,
                      std::optional<int> top_logprobs) {
  RETURN_IF_ERROR(CheckSampling(sampling));
  RETURN_IF_ERROR(CheckStop(stop));
  if (top_logprobs && (*top_logprobs < 0 || *top_logprobs > kMaxTopLogprobs)) {
    return Invalid(RequestField::kTopLogprobs, absl::StrCat("within [0, ", kMaxTopLogprobs, "]"),
                   absl::StrCat(*top_logprobs));
  }
  return absl::OkStatus();
}

}  // namespace tessera
