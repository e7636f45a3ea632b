#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "cache/policies/registry.h"
#include "server/api/error_details.h"
#include "server/api/parsed_request.h"

namespace tessera {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxPolicyBytes = 256;
constexpr size_t kMaxSaltBytes = 256;

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicyField(const std::string& text,
                                                               const RequestRules& rules) {
  if (text.empty()) return rules.default_policy;
  if (text.size() > kMaxPolicyBytes) {
    return FieldError("kv_policy.text", absl::StrCat("longer than ", kMaxPolicyBytes, " bytes"));
  }
  auto policy = ParsePolicy(text);
  if (!policy.ok()) return FieldError("kv_policy.text", policy.status().message());
  const std::vector<std::string>& allowed = rules.allowed_policies;
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

absl::StatusOr<SamplingParams> ParseSampling(const v1::Sampling& in, const ModelConfig& model) {
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

absl::StatusOr<StopParams> ParseStopping(const v1::GenerateRequest& in, const ModelConfig& model) {
  const v1::Stopping& stopping = in.stopping();
  StopParams out;
  // Without a number of its own, an answer may have as many tokens as there is room for.
  out.max_tokens =
      stopping.has_max_tokens() ? stopping.max_tokens() : std::numeric_limits<int>::max();
  out.min_tokens = stopping.min_tokens();
  out.strings.assign(stopping.stop().begin(), stopping.stop().end());
  out.token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  out.ignore_eos = stopping.ignore_eos();
  out.include_stop = in.response().include_stop();
  for (size_t i = 0; i < out.token_ids.size(); ++i) {
    if (out.token_ids[i] < model.text.vocab) continue;
    return FieldError(
        absl::StrCat("stopping.stop_token_ids[", i, "]"),
        absl::StrCat(out.token_ids[i], " is outside the vocabulary of ", model.text.vocab));
  }
  return out;
}

// Returns Request::top_logprobs: -1 for none.
absl::StatusOr<int> ParseLogprobs(const v1::ResponseOptions& in) {
  if (in.has_logprobs() && !in.logprobs() && in.top_logprobs() > 0) {
    return FieldError("response.top_logprobs", "asks for candidates, but logprobs is false");
  }
  return in.logprobs() || in.has_top_logprobs() ? in.top_logprobs() : -1;
}

absl::StatusOr<bool> ParseCommitAt(v1::KvPolicy::CommitAt commit_at) {
  switch (commit_at) {
    case v1::KvPolicy::COMMIT_AT_UNSPECIFIED:
    case v1::KvPolicy::COMMIT_AT_PROMPT:
      return false;
    case v1::KvPolicy::COMMIT_AT_QUESTION:
      return true;
    default:
      return FieldError("kv_policy.commit_at",
                        absl::StrCat(commit_at, " is no CommitAt of this server"));
  }
}

// Fills what identifies the request and where its cache may be shared.
absl::Status ParseIdentity(const v1::GenerateRequest& in, const RequestRules& rules, Request* out) {
  if (!in.request_id().empty()) RETURN_IF_ERROR(CheckRequestId("request_id", in.request_id()));
  if (!in.model().empty() && in.model() != rules.model->name) {
    return ModelNotFound(rules.model->name);
  }
  if (in.cache().salt().size() > kMaxSaltBytes) {
    return FieldError("cache.salt", absl::StrCat("longer than ", kMaxSaltBytes, " bytes"));
  }
  out->id = in.request_id();
  out->bypass_prefix = in.cache().bypass_prefix();
  out->salt = in.cache().salt();
  out->priority = in.priority();
  return absl::OkStatus();
}

absl::Status ParseResponse(const v1::ResponseOptions& in, const RequestRules& rules,
                           ParsedRequest* out) {
  ASSIGN_OR_RETURN(out->request.top_logprobs, ParseLogprobs(in));
  out->reply.token_ids = in.token_ids();
  out->reply.logprobs = out->request.top_logprobs >= 0;
  out->request.explain = in.explain();
  if (!in.explain() || rules.allow_explain) return absl::OkStatus();
  return FieldError("response.explain", "this server's --allow_explain is off",
                    reason::kExplainNotAllowed, absl::StatusCode::kFailedPrecondition);
}

}  // namespace

absl::StatusOr<ParsedRequest> ParseRequest(v1::GenerateRequest in, const RequestRules& rules) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  ParsedRequest out;
  Request& request = out.request;
  RETURN_IF_ERROR(ParseIdentity(in, rules, &request));
  ASSIGN_OR_RETURN(request.sampling, ParseSampling(in.sampling(), *rules.model));
  ASSIGN_OR_RETURN(request.stop, ParseStopping(in, *rules.model));
  if (in.stopping().has_max_tokens()) out.max_tokens = in.stopping().max_tokens();
  std::optional<int> top_logprobs;
  if (in.response().has_top_logprobs()) top_logprobs = in.response().top_logprobs();
  RETURN_IF_ERROR(WithProtoPath(Validate(request.sampling, request.stop, top_logprobs), {}));
  RETURN_IF_ERROR(ParseResponse(in.response(), rules, &out));
  ASSIGN_OR_RETURN(request.policy, ParsePolicyField(in.kv_policy().text(), rules));
  ASSIGN_OR_RETURN(out.commit_at_question, ParseCommitAt(in.kv_policy().commit_at()));
  ASSIGN_OR_RETURN(out.prompt, ParsePrompt(&in, rules));
  return out;
}

absl::StatusOr<Request> CompleteRequest(ParsedRequest parsed, Prompt prompt, int context_tokens) {
  const int left = context_tokens - static_cast<int>(prompt.ids.size());
  TESSERA_CHECK(left >= 1 && parsed.default_max_tokens >= 1);
  if (parsed.max_tokens.value_or(0) > left) {
    return FieldError("stopping.max_tokens",
                      absl::StrCat("the prompt has ", prompt.ids.size(), " tokens; the context of ",
                                   context_tokens, " leaves ", left),
                      reason::kLimitExceeded);
  }
  Request out = std::move(parsed.request);
  out.stop.max_tokens = parsed.max_tokens.value_or(std::min(left, parsed.default_max_tokens));
  if (out.stop.min_tokens > out.stop.max_tokens) {
    return FieldError("stopping.min_tokens", absl::StrCat("more than the ", out.stop.max_tokens,
                                                          " tokens that the answer may have"));
  }
  if (parsed.commit_at_question) {
    if (prompt.images.empty()) {
      return FieldError("kv_policy.commit_at",
                        "COMMIT_AT_QUESTION is after the last image; the prompt has none");
    }
    const int per_image = prompt.image_tokens / static_cast<int>(prompt.images.size());
    out.commit_tokens = prompt.images.back().begin + per_image;
  }
  out.prompt = std::move(prompt);
  return out;
}

absl::Status ModelNotFound(absl::string_view served) {
  return FieldError("model", absl::StrCat("this server serves ", served, " only"),
                    reason::kModelNotFound, absl::StatusCode::kNotFound);
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
