// Longer than 300 lines because it lists all parameters of OpenAI's API.
#include "server/http/openai_request.h"

#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/json.h"
#include "server/api/error_details.h"
#include "server/http/json_members.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr JsonLimits kLimits = {
    .max_bytes = std::numeric_limits<int64_t>::max(), .max_depth = 16, .max_values = 1'000'000};

absl::Status Wrong(absl::string_view path, absl::string_view what) {
  return FieldError(path, what);
}

absl::Status AddPart(const Json& part, const std::string& path, v1::Message* message) {
  if (!part.is_object()) return Wrong(path, "want an object with a type");
  JsonMembers members(part, path);
  std::string type, text, url;
  RETURN_IF_ERROR(members.String("type", [&](std::string v) { type = std::move(v); }));
  if (type == "text") {
    if (members.Find("text") == nullptr) return Wrong(path + ".text", "is missing");
    RETURN_IF_ERROR(members.String(
        "text", [&](std::string v) { message->add_content()->set_text(std::move(v)); }));
    return members.Finish();
  }
  if (type != "image_url") {
    return Wrong(path + ".type", "this server takes text and image_url parts");
  }
  const Json* image = members.Find("image_url");
  if (image == nullptr) return Wrong(path + ".image_url", "is missing");
  if (image->is_string()) {
    url = image->get<std::string>();
  } else if (image->is_object()) {
    JsonMembers inner(*image, path + ".image_url");
    RETURN_IF_ERROR(inner.String("url", [&](std::string v) { url = std::move(v); }));
    // The model has one resolution.
    RETURN_IF_ERROR(inner.Only("detail", {"auto", "low", "high"}, "want auto, low or high"));
    RETURN_IF_ERROR(inner.Finish());
  } else {
    return Wrong(path + ".image_url", "want an object with a url");
  }
  RETURN_IF_ERROR(members.Finish());
  return ParseImageUrl(url, path + ".image_url.url", message->add_content()->mutable_image());
}

absl::Status AddMessage(const Json& in, const std::string& path, v1::GenerateRequest* out) {
  if (!in.is_object()) return Wrong(path, "want an object");
  JsonMembers members(in, path);
  v1::Message* message = out->add_messages();
  std::string role;
  RETURN_IF_ERROR(members.String("role", [&](std::string v) { role = std::move(v); }));
  if (role == "system" || role == "developer") {
    message->set_role(v1::Message::ROLE_SYSTEM);
  } else if (role == "user") {
    message->set_role(v1::Message::ROLE_USER);
  } else if (role == "assistant") {
    message->set_role(v1::Message::ROLE_ASSISTANT);
  } else {
    return Wrong(path + ".role", "want system, developer, user or assistant");
  }
  members.Accept("name");
  members.Accept("refusal");
  const Json* content = members.Find("content");
  if (content == nullptr) return Wrong(path + ".content", "is missing");
  if (content->is_string()) {
    message->add_content()->set_text(content->get<std::string>());
  } else if (content->is_array()) {
    for (size_t i = 0; i < content->size(); ++i) {
      RETURN_IF_ERROR(AddPart((*content)[i], absl::StrCat(path, ".content[", i, "]"), message));
    }
  } else {
    return Wrong(path + ".content", "want a string or an array of parts");
  }
  return members.Finish();
}

absl::Status ParseMessages(JsonMembers& members, std::vector<v1::GenerateRequest>* prompts) {
  const Json* messages = members.Find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return Wrong("messages", "want an array with at least one message");
  }
  v1::GenerateRequest& request = prompts->emplace_back();
  for (size_t i = 0; i < messages->size(); ++i) {
    RETURN_IF_ERROR(AddMessage((*messages)[i], absl::StrCat("messages[", i, "]"), &request));
  }
  return absl::OkStatus();
}

absl::Status AddIds(const Json& ids, const std::string& path, v1::GenerateRequest* out) {
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
      return Wrong(path, "want token ids");
    }
    out->mutable_tokenized()->add_ids(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status AddPrompt(const Json& prompt, const std::string& path,
                       std::vector<v1::GenerateRequest>* prompts) {
  v1::GenerateRequest& request = prompts->emplace_back();
  if (prompt.is_string()) {
    request.add_content()->set_text(prompt.get<std::string>());
    request.set_apply_template(false);
    return absl::OkStatus();
  }
  if (prompt.is_array() && !prompt.empty()) return AddIds(prompt, path, &request);
  return Wrong(path, "want a string or token ids");
}

// Parses a string, token ids, or an array of either.
absl::Status ParsePrompts(JsonMembers& members, std::vector<v1::GenerateRequest>* prompts) {
  const Json* prompt = members.Find("prompt");
  if (prompt == nullptr) return Wrong("prompt", "is missing");
  const bool many = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!many) return AddPrompt(*prompt, "prompt", prompts);
  if (prompt->size() > kMaxChoices) {
    return Wrong("prompt", absl::StrCat("at most ", kMaxChoices, " prompts in one request"));
  }
  for (size_t i = 0; i < prompt->size(); ++i) {
    RETURN_IF_ERROR(AddPrompt((*prompt)[i], absl::StrCat("prompt[", i, "]"), prompts));
  }
  return absl::OkStatus();
}

absl::Status ParseSampling(JsonMembers& members, const ModelConfig& model, v1::Sampling* out) {
  if (model.generation.temperature == 0) out->set_temperature(1);
  RETURN_IF_ERROR(members.Number("temperature", [&](double v) { out->set_temperature(v); }));
  RETURN_IF_ERROR(members.Number("top_p", [&](double v) { out->set_top_p(v); }));
  RETURN_IF_ERROR(members.Number("min_p", [&](double v) { out->set_min_p(v); }));
  RETURN_IF_ERROR(members.Integer("top_k", -1, std::numeric_limits<int32_t>::max(),
                                  [&](int64_t v) { out->set_top_k(v < 0 ? 0 : v); }));
  RETURN_IF_ERROR(
      members.Number("repetition_penalty", [&](double v) { out->set_repetition_penalty(v); }));
  RETURN_IF_ERROR(
      members.Number("presence_penalty", [&](double v) { out->set_presence_penalty(v); }));
  RETURN_IF_ERROR(
      members.Number("frequency_penalty", [&](double v) { out->set_frequency_penalty(v); }));
  constexpr int64_t kMaxSeed = std::numeric_limits<int64_t>::max();
  RETURN_IF_ERROR(members.Integer("seed", std::numeric_limits<int64_t>::min(), kMaxSeed,
                                  [&](int64_t v) { out->set_seed(static_cast<uint64_t>(v)); }));
  const Json* biases = members.Find("logit_bias");
  if (biases == nullptr) return absl::OkStatus();
  if (!biases->is_object()) return Wrong("logit_bias", "want an object of token ids and numbers");
  for (const auto& [key, value] : biases->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || !value.is_number()) {
      return Wrong("logit_bias", "want an object of token ids and numbers");
    }
    (*out->mutable_logit_bias())[id] = value.get<float>();
  }
  return absl::OkStatus();
}

absl::Status ParseStopping(JsonMembers& members, v1::GenerateRequest* out) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  v1::Stopping* stopping = out->mutable_stopping();
  RETURN_IF_ERROR(
      members.Integer("max_tokens", 1, kMost, [&](int64_t v) { stopping->set_max_tokens(v); }));
  RETURN_IF_ERROR(members.Integer("max_completion_tokens", 1, kMost,
                                  [&](int64_t v) { stopping->set_max_tokens(v); }));
  RETURN_IF_ERROR(
      members.Integer("min_tokens", 0, kMost, [&](int64_t v) { stopping->set_min_tokens(v); }));
  RETURN_IF_ERROR(members.Bool("ignore_eos", [&](bool v) { stopping->set_ignore_eos(v); }));
  RETURN_IF_ERROR(members.Bool("include_stop_str_in_output",
                               [&](bool v) { out->mutable_response()->set_include_stop(v); }));
  if (const Json* ids = members.Find("stop_token_ids"); ids != nullptr) {
    if (!ids->is_array()) return Wrong("stop_token_ids", "want an array of token ids");
    for (const Json& id : *ids) {
      if (!id.is_number_integer()) return Wrong("stop_token_ids", "want an array of token ids");
      const int64_t value = id.get<int64_t>();
      stopping->add_stop_token_ids(value < 0 || value > kMost ? -1 : static_cast<int32_t>(value));
    }
  }
  const Json* stop = members.Find("stop");
  if (stop == nullptr) return absl::OkStatus();
  if (stop->is_string()) {
    stopping->add_stop(stop->get<std::string>());
    return absl::OkStatus();
  }
  if (!stop->is_array()) return Wrong("stop", "want a string or an array of strings");
  for (const Json& one : *stop) {
    if (!one.is_string()) return Wrong("stop", "want a string or an array of strings");
    stopping->add_stop(one.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ParseLogprobs(OpenAiKind kind, JsonMembers& members, v1::ResponseOptions* out) {
  if (kind == OpenAiKind::kCompletion) {
    return members.Integer("logprobs", 0, 20, [&](int64_t v) { out->set_top_logprobs(v); });
  }
  RETURN_IF_ERROR(members.Bool("logprobs", [&](bool v) { out->set_logprobs(v); }));
  RETURN_IF_ERROR(
      members.Integer("top_logprobs", 0, 20, [&](int64_t v) { out->set_top_logprobs(v); }));
  if (out->has_top_logprobs() && !out->logprobs()) {
    return Wrong("top_logprobs", "needs logprobs = true");
  }
  return absl::OkStatus();
}

// Rejects parameters of OpenAI's API that this server does not support.
absl::Status CheckUnsupported(OpenAiKind kind, JsonMembers& members) {
  for (const char* key :
       {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}) {
    members.Accept(key);
  }
  RETURN_IF_ERROR(members.Only("skip_special_tokens", {true}, "special tokens are never shown"));
  if (kind == OpenAiKind::kCompletion) {
    RETURN_IF_ERROR(members.Only("echo", {false}, "this server does not return the prompt"));
    RETURN_IF_ERROR(members.Only("suffix", {""}, "this server does not complete in the middle"));
    return members.Only("best_of", {1}, "this server returns every answer that it makes; use n");
  }
  RETURN_IF_ERROR(members.Only("tools", {Json::array()}, "this server does not call tools"));
  RETURN_IF_ERROR(members.Only("tool_choice", {"none", "auto"}, "this server does not call tools"));
  members.Accept("parallel_tool_calls");
  RETURN_IF_ERROR(members.Only("functions", {Json::array()}, "this server does not call tools"));
  RETURN_IF_ERROR(
      members.Only("modalities", {Json::array({"text"})}, "this server answers in text"));
  RETURN_IF_ERROR(members.Only("response_format", {Json{{"type", "text"}}},
                               "this server does not constrain the answer's form; want "
                               "{\"type\": \"text\"}"));
  return absl::OkStatus();
}

absl::Status ParseStream(JsonMembers& members, OpenAiRequest* out) {
  RETURN_IF_ERROR(members.Bool("stream", [&](bool v) { out->stream = v; }));
  const Json* options = members.Find("stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!out->stream) return Wrong("stream_options", "needs stream = true");
  if (!options->is_object()) return Wrong("stream_options", "want an object");
  JsonMembers inner(*options, "stream_options");
  RETURN_IF_ERROR(inner.Bool("include_usage", [&](bool v) { out->include_usage = v; }));
  RETURN_IF_ERROR(inner.Only("include_obfuscation", {false}, "this server does not pad pieces"));
  RETURN_IF_ERROR(inner.Bool("continuous_usage_stats", [&](bool v) { out->continuous_usage = v; }));
  if (out->continuous_usage && !out->include_usage) {
    return Wrong("stream_options.continuous_usage_stats", "needs include_usage = true");
  }
  return inner.Finish();
}

}  // namespace

absl::Status ParseImageUrl(const std::string& url, absl::string_view path, v1::Image* image) {
  if (url.empty()) return FieldError(path, "want data:image/png;base64,... or https://...");
  if (!absl::StartsWithIgnoreCase(url, "data:")) {
    image->set_url(url);
    return absl::OkStatus();
  }
  const size_t comma = url.find(',');
  const std::string head = url.substr(5, comma == std::string::npos ? comma : comma - 5);
  if (comma == std::string::npos || !absl::EndsWithIgnoreCase(head, ";base64")) {
    return FieldError(path, "want data:<type>;base64,<data>");
  }
  std::string bytes;
  if (!absl::Base64Unescape(absl::string_view(url).substr(comma + 1), &bytes) || bytes.empty()) {
    return FieldError(path, "not base64");
  }
  image->set_mime(head.substr(0, head.find(';')));
  image->set_data(std::move(bytes));
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseOpenAiJson(absl::string_view body) {
  ASSIGN_OR_RETURN(Json json, ParseJson(body, "the request's body", kLimits));
  if (!json.is_object()) return absl::InvalidArgumentError("the request's body: want an object");
  return json;
}

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, absl::string_view body,
                                                 const ModelConfig& model) {
  ASSIGN_OR_RETURN(const Json json, ParseOpenAiJson(body));
  JsonMembers members(json, "");
  OpenAiRequest out;
  out.kind = kind;
  v1::GenerateRequest common;
  RETURN_IF_ERROR(members.String("model", [&](std::string v) { common.set_model(std::move(v)); }));
  RETURN_IF_ERROR(ParseSampling(members, model, common.mutable_sampling()));
  RETURN_IF_ERROR(ParseStopping(members, &common));
  RETURN_IF_ERROR(ParseLogprobs(kind, members, common.mutable_response()));
  RETURN_IF_ERROR(members.String(
      "kv_policy", [&](std::string v) { common.mutable_kv_policy()->set_text(std::move(v)); }));
  RETURN_IF_ERROR(members.Only("kv_commit_at", {"prompt", "question"}, "want prompt or question"));
  if (const Json* at = members.Find("kv_commit_at"); at != nullptr) {
    common.mutable_kv_policy()->set_commit_at(*at == "question" ? v1::KvPolicy::COMMIT_AT_QUESTION
                                                                : v1::KvPolicy::COMMIT_AT_PROMPT);
  }
  RETURN_IF_ERROR(members.String(
      "cache_salt", [&](std::string v) { common.mutable_cache()->set_salt(std::move(v)); }));
  RETURN_IF_ERROR(members.Integer("priority", std::numeric_limits<int32_t>::min(),
                                  std::numeric_limits<int32_t>::max(),
                                  [&](int64_t v) { common.set_priority(v); }));
  RETURN_IF_ERROR(members.Integer("n", 1, kMaxChoices, [&](int64_t v) { out.n = v; }));
  RETURN_IF_ERROR(ParseStream(members, &out));
  RETURN_IF_ERROR(CheckUnsupported(kind, members));
  RETURN_IF_ERROR(kind == OpenAiKind::kChat ? ParseMessages(members, &out.prompts)
                                            : ParsePrompts(members, &out.prompts));
  RETURN_IF_ERROR(members.Finish());
  if (static_cast<int>(out.prompts.size()) * out.n > kMaxChoices) {
    return Wrong("n", absl::StrCat("at most ", kMaxChoices, " answers in one request"));
  }
  for (v1::GenerateRequest& prompt : out.prompts) prompt.MergeFrom(common);
  return out;
}

}  // namespace tessera
