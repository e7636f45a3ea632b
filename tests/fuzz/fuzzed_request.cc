#include "tests/fuzz/fuzzed_request.h"

#include <algorithm>
#include <cmath>

#include "base/base.h"
#include "cache/policies/registry.h"
#include "server/api/parsed_request.h"

namespace tessera {
namespace {

constexpr int kVocab = 576;
constexpr int kContext = 100;
constexpr int kMaxImages = 2;

RequestRules Rules() {
  static const ModelConfig* const model = [] {
    auto* config = new ModelConfig();
    config->name = "demo";
    config->text.vocab = kVocab;
    config->image_token = 512;
    return config;
  }();
  RequestRules rules;
  rules.model = model;
  rules.max_images = kMaxImages;
  rules.max_text_bytes = 1000;
  rules.default_policy = *ParsePolicy("none");
  return rules;
}

void CheckClientsFault(const absl::Status& status) {
  TESSERA_CHECK(status.code() == absl::StatusCode::kInvalidArgument ||
                status.code() == absl::StatusCode::kNotFound ||
                status.code() == absl::StatusCode::kFailedPrecondition);
  TESSERA_CHECK(!status.message().empty());
}

void CheckSampling(const SamplingParams& sampling) {
  TESSERA_CHECK(std::isfinite(sampling.temperature) && sampling.temperature >= 0);
  TESSERA_CHECK(sampling.top_k >= 0);
  TESSERA_CHECK(sampling.top_p > 0 && sampling.top_p <= 1);
  TESSERA_CHECK(sampling.min_p >= 0 && sampling.min_p <= 1);
  TESSERA_CHECK(std::isfinite(sampling.repetition_penalty) && sampling.repetition_penalty > 0);
  TESSERA_CHECK(std::isfinite(sampling.presence_penalty));
  TESSERA_CHECK(std::isfinite(sampling.frequency_penalty));
  for (const auto& [id, bias] : sampling.logit_bias) {
    TESSERA_CHECK(id >= 0 && id < kVocab && !std::isnan(bias));
  }
}

}  // namespace

void ConvertAndCheck(const v1::GenerateRequest& in) {
  auto parsed = ParseRequest(in, Rules());
  if (!parsed.ok()) return CheckClientsFault(parsed.status());
  const Request& request = parsed->request;
  CheckSampling(request.sampling);
  TESSERA_CHECK(request.stop.max_tokens >= 1 && request.stop.min_tokens >= 0);
  TESSERA_CHECK(request.stop.strings.size() <= kMaxStopStrings);
  for (const std::string& text : request.stop.strings) {
    TESSERA_CHECK(!text.empty() && text.size() <= kMaxStopStringBytes);
  }
  TESSERA_CHECK(request.top_logprobs >= -1 && request.top_logprobs <= kMaxTopLogprobs);
  TESSERA_CHECK(request.policy != nullptr && !request.explain);
  TESSERA_CHECK(parsed->prompt.input.images.size() <= kMaxImages && parsed->prompt.urls.empty());
  // As if the prompt were as long as its ids, or of one token.
  Prompt prompt;
  prompt.ids.assign(std::clamp<size_t>(parsed->prompt.input.ids.size(), 1, kContext - 1), 0);
  const int prompt_tokens = static_cast<int>(prompt.ids.size());
  parsed->default_max_tokens = 16;
  const auto complete = CompleteRequest(*std::move(parsed), std::move(prompt), kContext);
  if (!complete.ok()) return CheckClientsFault(complete.status());
  TESSERA_CHECK(complete->stop.max_tokens >= 1);
  TESSERA_CHECK(complete->stop.max_tokens <= kContext - prompt_tokens);
  TESSERA_CHECK(complete->stop.min_tokens <= complete->stop.max_tokens);
}

}  // namespace tessera
