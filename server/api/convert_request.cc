#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cache/policies/registry.h"
#include "server/api/convert.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxPolicyBytes = 256;
constexpr size_t kMaxSaltBytes = 256;
constexpr int kMaxTopLogprobs = 20;

absl::StatusOr<std::shared_ptr<const Policy>> ConvertPolicy(const std::string& text,
                                                            const ConvertOptions& options) {
  if (text.empty()) return options.default_policy;
  if (text.size() > kMaxPolicyBytes) {
    return FieldError("kv_policy.text", absl::StrCat("longer than ", kMaxPolicyBytes, " bytes"));
  }
  auto policy = ParsePolicy(text);
  if (!policy.ok()) return FieldError("kv_policy.text", policy.status().message());
  const std::vector<std::string>& allowed = options.allowed_policies;
  for (const std::string& name : (*policy)->names()) {
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      return FieldError("kv_policy.text",
                        absl::StrCat("this server does not allow ", name,
                                     "; it allows: ", absl::StrJoin(allowed, ", ")),
                        reason::kPolicyNotAllowed, absl::StatusCode::kFailedPrecondition);
    }
  }
  return *std::move(policy);
}

absl::StatusOr<SamplingParams> ConvertSampling(const v1::Sampling& in, const ModelConfig& model) {
  const GenerationDefaults& defaults = model.generation;
  SamplingParams out;
  out.temperature = in.has_temperature() ? in.temperature() : defaults.temperature;
  out.top_k = in.has_top_k() ? in.top_k() : defaults.top_k;
  out.top_p = in.has_top_p() ? in.top_p() : defaults.top_p;
  out.min_p = in.min_p();
  out.repetition_penalty =
      in.has_repetition_penalty() ? in.repetition_penalty() : defaults.repetition_penalty;
  out.presence_penalty = in.presence_penalty();
  out.frequency_penalty = in.frequency_penalty();
  out.has_seed = in.has_seed();
  out.seed = in.seed();
  for (const auto& [id, bias] : in.logit_bias()) {
    if (id < 0 || id >= model.text.vocab) {
      return FieldError(
          "sampling.logit_bias",
          absl::StrCat("token ", id, " is outside the vocabulary of ", model.text.vocab));
    }
    out.logit_bias.emplace_back(id, bias);
  }
  std::sort(out.logit_bias.begin(), out.logit_bias.end());  // the map has no order
  return out;
}

absl::Status ConvertStopping(const v1::GenerateRequest& in, const ModelConfig& model,
                             StopParams* out) {
  const v1::Stopping& stopping = in.stopping();
  if (stopping.has_max_tokens() && stopping.max_tokens() <= 0) {
    return FieldError("stopping.max_tokens", "want at least 1");
  }
  out->max_tokens = stopping.max_tokens();
  out->min_tokens = stopping.min_tokens();
  out->strings.assign(stopping.stop().begin(), stopping.stop().end());
  out->token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  out->ignore_eos = stopping.ignore_eos();
  out->include_stop = in.response().include_stop();
  for (size_t i = 0; i < out->token_ids.size(); ++i) {
    if (out->token_ids[i] < 0 || out->token_ids[i] >= model.text.vocab) {
      return FieldError(
          absl::StrCat("stopping.stop_token_ids[", i, "]"),
          absl::StrCat(out->token_ids[i], " is outside the vocabulary of ", model.text.vocab));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> ConvertLogprobs(const v1::ResponseOptions& in) {
  if (in.top_logprobs() < 0 || in.top_logprobs() > kMaxTopLogprobs) {
    return FieldError("response.top_logprobs", absl::StrCat("want 0 to ", kMaxTopLogprobs));
  }
  if (in.has_logprobs() && !in.logprobs() && in.top_logprobs() > 0) {
    return FieldError("response.top_logprobs", "asks for candidates, but logprobs is false");
  }
  return in.logprobs() || in.has_top_logprobs() ? in.top_logprobs() : -1;
}

}  // namespace

absl::StatusOr<Request> ConvertRequest(const v1::GenerateRequest& in,
                                       const ConvertOptions& options) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  Request out;
  if (!in.request_id().empty()) RETURN_IF_ERROR(CheckRequestId("request_id", in.request_id()));
  out.id = in.request_id();
  if (!in.model().empty() && in.model() != options.model->name) {
    return ModelNotFound(options.model->name);
  }
  ASSIGN_OR_RETURN(out.sampling, ConvertSampling(in.sampling(), *options.model));
  RETURN_IF_ERROR(ConvertStopping(in, *options.model, &out.stop));
  StopParams checked = out.stop;
  if (checked.max_tokens == 0) checked.max_tokens = std::max(1, checked.min_tokens);
  RETURN_IF_ERROR(WithProtoPath(Validate(out.sampling, checked), PromptPaths{}));
  ASSIGN_OR_RETURN(out.top_logprobs, ConvertLogprobs(in.response()));
  out.explain = in.response().explain();
  if (out.explain && !options.allow_explain) {
    return FieldError("response.explain", "this server's --allow_explain is off",
                      reason::kExplainNotAllowed, absl::StatusCode::kFailedPrecondition);
  }
  ASSIGN_OR_RETURN(out.policy, ConvertPolicy(in.kv_policy().text(), options));
  if (in.cache().salt().size() > kMaxSaltBytes) {
    return FieldError("cache.salt", absl::StrCat("longer than ", kMaxSaltBytes, " bytes"));
  }
  out.bypass_prefix = in.cache().bypass_prefix();
  out.salt = in.cache().salt();
  out.priority = in.priority();
  return out;
}

absl::Status ModelNotFound(absl::string_view served) {
  return FieldError("model", absl::StrCat("this server serves ", served, " only"),
                    reason::kModelNotFound, absl::StatusCode::kNotFound);
}

absl::Status SetMaxTokens(const v1::GenerateRequest& in, int context_tokens, int default_max_tokens,
                          Request* request) {
  const int prompt = static_cast<int>(request->prompt.ids.size());
  const char* prompt_path = in.has_tokenized()      ? "tokenized.ids"
                            : in.messages().empty() ? "content"
                                                    : "messages";
  const int left = context_tokens - prompt;
  if (left < 1) {
    return FieldError(prompt_path,
                      absl::StrCat("the prompt has ", prompt, " tokens (",
                                   request->prompt.image_tokens, " of images); the context of ",
                                   context_tokens, " leaves no room for an answer"),
                      reason::kLimitExceeded);
  }
  if (in.stopping().has_max_tokens()) {
    if (in.stopping().max_tokens() > left) {
      return FieldError("stopping.max_tokens",
                        absl::StrCat("the prompt has ", prompt, " tokens; the context of ",
                                     context_tokens, " leaves ", left),
                        reason::kLimitExceeded);
    }
  } else {
    request->stop.max_tokens = std::min(left, default_max_tokens);
  }
  if (request->stop.min_tokens > request->stop.max_tokens) {
    return FieldError("stopping.min_tokens",
                      absl::StrCat("more than the ", request->stop.max_tokens,
                                   " tokens that the answer may have"));
  }
  return absl::OkStatus();
}

absl::Status SetCommitPoint(const v1::GenerateRequest& in, Request* request) {
  using KvPolicy = v1::KvPolicy;
  const Prompt& prompt = request->prompt;
  switch (in.kv_policy().commit_at()) {
    case KvPolicy::COMMIT_AT_UNSPECIFIED:
    case KvPolicy::COMMIT_AT_PROMPT:
      request->commit_tokens = 0;
      return absl::OkStatus();
    case KvPolicy::COMMIT_AT_QUESTION: {
      if (prompt.images.empty()) {
        return FieldError("kv_policy.commit_at",
                          "COMMIT_AT_QUESTION is after the last image; the prompt has none");
      }
      const int per_image = prompt.image_tokens / static_cast<int>(prompt.images.size());
      request->commit_tokens = prompt.images.back().begin + per_image;
      return absl::OkStatus();
    }
    default:
      return FieldError("kv_policy.commit_at",
                        absl::StrCat(in.kv_policy().commit_at(), " is no CommitAt of this server"));
  }
}

absl::Status CheckRequestId(absl::string_view path, absl::string_view id) {
  const bool visible = std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
  if (id.empty() || id.size() > kMaxRequestIdBytes || !visible) {
    return FieldError(path,
                      absl::StrCat("want 1 to ", kMaxRequestIdBytes, " visible ASCII characters"));
  }
  return absl::OkStatus();
}

}  // namespace tessera
