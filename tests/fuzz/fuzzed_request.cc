#include "tests/fuzz/fuzzed_request.h"

#include <cmath>

#include "base/base.h"
#include "cache/policies/registry.h"
#include "server/api/convert.h"

namespace tessera {
namespace {

constexpr int kVocab = 576;
constexpr int kContext = 100;
constexpr int kMaxImages = 2;

ConvertOptions Options() {
  static const ModelConfig* const model = [] {
    auto* config = new ModelConfig();
    config->name = "demo";
    config->text.vocab = kVocab;
    config->image_token = 512;
    return config;
  }();
  ConvertOptions options;
  options.model = model;
  options.context_tokens = kContext;
  options.max_images = kMaxImages;
  options.max_text_bytes = 1000;
  options.default_policy = *ParsePolicy("none");
  return options;
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
  const ConvertOptions options = Options();
  auto request = ConvertRequest(in, options);
  if (!request.ok()) return CheckClientsFault(request.status());
  CheckSampling(request->sampling);
  TESSERA_CHECK(request->stop.max_tokens >= 0 && request->stop.min_tokens >= 0);
  TESSERA_CHECK(request->stop.strings.size() <= kMaxStopStrings);
  for (const std::string& text : request->stop.strings) {
    TESSERA_CHECK(!text.empty() && text.size() <= kMaxStopStringBytes);
  }
  TESSERA_CHECK(request->top_logprobs >= -1 && request->top_logprobs <= kMaxTopLogprobs);
  TESSERA_CHECK(request->policy != nullptr && !request->explain);
  const auto prompt = ConvertPrompt(in, options);
  if (!prompt.ok()) return CheckClientsFault(prompt.status());
  TESSERA_CHECK(prompt->input.images.size() <= kMaxImages && prompt->input.ids.size() <= kContext);
  // As if the prompt were as long as its ids, or of one token.
  request->prompt.ids.assign(std::max<size_t>(1, prompt->input.ids.size()), 0);
  if (const auto status = SetMaxTokens(in, kContext, /*default_max_tokens=*/16, &*request);
      !status.ok()) {
    return CheckClientsFault(status);
  }
  const int prompt_tokens = static_cast<int>(request->prompt.ids.size());
  TESSERA_CHECK(request->stop.max_tokens >= 1);
  TESSERA_CHECK(request->stop.max_tokens <= kContext - prompt_tokens);
  TESSERA_CHECK(request->stop.min_tokens <= request->stop.max_tokens);
  if (const auto status = SetCommitPoint(in, &*request); !status.ok()) CheckClientsFault(status);
}

}  // namespace tessera
