#include "server/http/openai_reply.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/reply.h"

namespace tessera {
namespace {

using Json = OpenAiReply::Json;

Json FinishReasonOf(const OpenAiChoice& choice) {
  if (!choice.done) return nullptr;
  return choice.reason == FinishReason::kLength ? "length" : "stop";
}

Json Bytes(const std::string& bytes) {
  Json out = Json::array();
  for (const char c : bytes) out.push_back(static_cast<unsigned char>(c));
  return out;
}

Json ChatToken(const Tokenizer& tokenizer, int32_t id, float logprob) {
  return {{"token", TokenText(tokenizer, id)},
          {"logprob", logprob},
          {"bytes", Bytes(tokenizer.TokenBytes(id))}};
}

}  // namespace

OpenAiReply::OpenAiReply(OpenAiKind kind, std::string request_id, std::string model, bool logprobs,
                         int64_t created_unix_seconds, const Tokenizer* tokenizer)
    : kind_(kind),
      id_(absl::StrCat(kind == OpenAiKind::kChat ? "chatcmpl-" : "cmpl-", request_id)),
      model_(std::move(model)),
      logprobs_(logprobs),
      created_(created_unix_seconds),
      tokenizer_(tokenizer) {}

Json OpenAiReply::Head(const char* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

Json OpenAiReply::Logprobs(const OpenAiChoice& choice) const {
  if (!logprobs_) return nullptr;
  if (kind_ == OpenAiKind::kChat) {
    Json content = Json::array();
    for (const TokenLogprob& token : choice.logprobs) {
      Json entry = ChatToken(*tokenizer_, token.id, token.logprob);
      entry["top_logprobs"] = Json::array();
      for (const auto& [id, logprob] : token.top) {
        entry["top_logprobs"].push_back(ChatToken(*tokenizer_, id, logprob));
      }
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
  Json out = {{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  int64_t offset = choice.text_offset;
  for (const TokenLogprob& token : choice.logprobs) {
    const std::string text = TokenText(*tokenizer_, token.id);
    Json top = Json::object();
    for (const auto& [id, logprob] : token.top) top[TokenText(*tokenizer_, id)] = logprob;
    out["tokens"].push_back(text);
    out["token_logprobs"].push_back(token.logprob);
    out["top_logprobs"].push_back(std::move(top));
    out["text_offset"].push_back(offset);
    offset += static_cast<int64_t>(text.size());
  }
  return out;
}

Json OpenAiReply::Choice(const OpenAiChoice& choice, int index, Json content) const {
  Json out = {{"index", index}};
  out.update(content);
  out["logprobs"] = Logprobs(choice);
  out["finish_reason"] = FinishReasonOf(choice);
  return out;
}

Json OpenAiReply::Answer(const std::vector<OpenAiChoice>& choices) const {
  const bool chat = kind_ == OpenAiKind::kChat;
  Json out = Head(chat ? "chat.completion" : "text_completion");
  out["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json content;
    if (chat) {
      content["message"] = {
          {"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
    } else {
      content["text"] = choices[i].text;
    }
    out["choices"].push_back(Choice(choices[i], static_cast<int>(i), std::move(content)));
  }
  AddUsage(choices, &out);
  return out;
}

Json OpenAiReply::Piece(const OpenAiChoice& choice, int index, bool first, bool counts) const {
  const bool chat = kind_ == OpenAiKind::kChat;
  Json out = Head(chat ? "chat.completion.chunk" : "text_completion");
  Json content;
  if (chat) {
    Json delta = Json::object();
    if (first) delta["role"] = "assistant";
    if (first || !choice.text.empty()) delta["content"] = choice.text;
    content["delta"] = std::move(delta);
  } else {
    content["text"] = choice.text;
  }
  out["choices"] = Json::array({Choice(choice, index, std::move(content))});
  if (counts) {
    const Usage& usage = choice.usage;
    out["usage"] = {{"prompt_tokens", usage.prompt_tokens},
                    {"completion_tokens", usage.output_tokens},
                    {"total_tokens", usage.prompt_tokens + usage.output_tokens}};
  }
  return out;
}

Json OpenAiReply::UsagePiece(const std::vector<OpenAiChoice>& choices) const {
  Json out = Head(kind_ == OpenAiKind::kChat ? "chat.completion.chunk" : "text_completion");
  out["choices"] = Json::array();
  AddUsage(choices, &out);
  return out;
}

void OpenAiReply::AddUsage(const std::vector<OpenAiChoice>& choices, Json* out) const {
  int64_t prompt = 0, cached = 0, image = 0, completion = 0, bytes = 0, peak = 0;
  double evicted_text = 0, evicted_image = 0;
  for (const OpenAiChoice& choice : choices) {
    const Usage& u = choice.usage;
    completion += u.output_tokens;
    bytes += u.kv_bytes;
    peak += u.kv_bytes_peak;
    evicted_text += u.evicted_text;
    evicted_image += u.evicted_vision;
    if (!choice.counts_prompt) continue;
    prompt += u.prompt_tokens;
    cached += u.cached_tokens;
    image += u.image_tokens;
  }
  const Usage& first = choices.front().usage;
  (*out)["usage"] = {
      {"prompt_tokens", prompt},
      {"completion_tokens", completion},
      {"total_tokens", prompt + completion},
      {"prompt_tokens_details", {{"cached_tokens", cached}, {"image_tokens", image}}}};
  (*out)["kv_cache"] = {{"policy", first.policy},
                        {"bytes", bytes},
                        {"bytes_peak", peak},
                        {"mean_bits", first.kv_mean_bits},
                        {"evicted_text_tokens", evicted_text},
                        {"evicted_image_tokens", evicted_image}};
}

}  // namespace tessera
