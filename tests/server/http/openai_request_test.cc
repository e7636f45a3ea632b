#include "server/http/openai_request.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<OpenAiRequest> Chat(const std::string& body) {
  return ParseOpenAiRequest(OpenAiKind::kChat, body, ModelConfig());
}
absl::StatusOr<OpenAiRequest> Completion(const std::string& body) {
  return ParseOpenAiRequest(OpenAiKind::kCompletion, body, ModelConfig());
}

constexpr char kUser[] = R"("messages":[{"role":"user","content":"hi"}])";

TEST(OpenAiRequestTest, EveryParameterArrives) {
  const auto parsed = Chat(absl::StrCat(
      R"({"model":"m","temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"n":2,"seed":7,)",
      R"("repetition_penalty":1.1,"presence_penalty":0.2,"frequency_penalty":0.3,)",
      R"("max_completion_tokens":9,"min_tokens":2,"ignore_eos":true,"stop":["a","b"],)",
      R"("stop_token_ids":[3],"include_stop_str_in_output":true,"logprobs":true,)",
      R"j("top_logprobs":4,"logit_bias":{"5":-100},"kv_policy":"rtn(bits=4)",)j",
      R"("kv_commit_at":"question","cache_salt":"s","priority":3,"user":"u","stream":true,)",
      R"("stream_options":{"include_usage":true,"continuous_usage_stats":true},)", kUser, "}"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->n, 2);
  EXPECT_TRUE(parsed->stream && parsed->include_usage && parsed->continuous_usage);
  ASSERT_EQ(parsed->prompts.size(), 1u);
  const v1::GenerateRequest& r = parsed->prompts[0];
  EXPECT_EQ(r.model(), "m");
  EXPECT_FLOAT_EQ(r.sampling().temperature(), 0.5f);
  EXPECT_FLOAT_EQ(r.sampling().top_p(), 0.9f);
  EXPECT_EQ(r.sampling().top_k(), 0);
  EXPECT_FLOAT_EQ(r.sampling().min_p(), 0.1f);
  EXPECT_EQ(r.sampling().seed(), 7u);
  EXPECT_FLOAT_EQ(r.sampling().repetition_penalty(), 1.1f);
  EXPECT_FLOAT_EQ(r.sampling().presence_penalty(), 0.2f);
  EXPECT_FLOAT_EQ(r.sampling().frequency_penalty(), 0.3f);
  EXPECT_FLOAT_EQ(r.sampling().logit_bias().at(5), -100);
  EXPECT_EQ(r.stopping().max_tokens(), 9);
  EXPECT_EQ(r.stopping().min_tokens(), 2);
  EXPECT_TRUE(r.stopping().ignore_eos());
  EXPECT_EQ(r.stopping().stop_size(), 2);
  EXPECT_EQ(r.stopping().stop_token_ids(0), 3);
  EXPECT_TRUE(r.response().include_stop());
  EXPECT_EQ(r.response().top_logprobs(), 4);
  EXPECT_EQ(r.kv_policy().text(), "rtn(bits=4)");
  EXPECT_EQ(r.kv_policy().commit_at(), v1::KvPolicy::COMMIT_AT_QUESTION);
  EXPECT_EQ(r.cache().salt(), "s");
  EXPECT_EQ(r.priority(), 3);
}

TEST(OpenAiRequestTest, AbsentTemperatureIsOpenAisUnlessTheModelSamples) {
  const std::string body = absl::StrCat("{", kUser, "}");
  EXPECT_EQ(Chat(body)->prompts[0].sampling().temperature(), 1);
  ModelConfig model;
  model.generation.temperature = 0.6f;
  const auto parsed = ParseOpenAiRequest(OpenAiKind::kChat, body, model);
  EXPECT_FALSE(parsed->prompts[0].sampling().has_temperature());  // the model's own applies
}

TEST(OpenAiRequestTest, ContentPartsKeepTheirOrder) {
  const std::string uri = absl::StrCat("data:image/png;base64,", absl::Base64Escape("PNG?"));
  const auto parsed = Chat(absl::StrCat(
      R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":[)",
      R"({"type":"text","text":"a"},{"type":"image_url","image_url":{"url":")", uri,
      R"(","detail":"high"}},{"type":"text","text":"b"}]},{"role":"assistant","content":"c"}]})"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::GenerateRequest& r = parsed->prompts[0];
  ASSERT_EQ(r.messages_size(), 3);
  EXPECT_EQ(r.messages(0).role(), v1::Message::ROLE_SYSTEM);
  EXPECT_EQ(r.messages(2).role(), v1::Message::ROLE_ASSISTANT);
  ASSERT_EQ(r.messages(1).content_size(), 3);
  EXPECT_EQ(r.messages(1).content(0).text(), "a");
  EXPECT_EQ(r.messages(1).content(1).image().data(), "PNG?");
  EXPECT_EQ(r.messages(1).content(1).image().mime(), "image/png");
  EXPECT_EQ(r.messages(1).content(2).text(), "b");
}

// Whether it is fetched is for the same check as gRPC's to say.
TEST(OpenAiRequestTest, UrlsAreHandedOn) {
  const auto parsed = Chat(
      R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":"https://x/a"}]}]})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->prompts[0].messages(0).content(0).image().url(), "https://x/a");
  EXPECT_EQ(parsed->prompts[0].messages(0).content(0).image().data(), "");
}

TEST(OpenAiRequestTest, CompletionPrompts) {
  EXPECT_EQ(Completion(R"({"prompt":"a"})")->prompts[0].content(0).text(), "a");
  EXPECT_FALSE(Completion(R"({"prompt":"a"})")->prompts[0].apply_template());
  EXPECT_EQ(Completion(R"({"prompt":["a","b"],"n":2})")->prompts.size(), 2u);
  EXPECT_EQ(Completion(R"({"prompt":[4,5,6]})")->prompts[0].tokenized().ids_size(), 3);
  EXPECT_EQ(Completion(R"({"prompt":[[4],[5,6]]})")->prompts[1].tokenized().ids_size(), 2);
  EXPECT_EQ(Completion(R"({"prompt":"a","logprobs":0})")->prompts[0].response().top_logprobs(), 0);
}

struct Bad {
  const char* body;
  const char* says;
};

TEST(OpenAiRequestTest, WhatCannotBeDoneIsNamed) {
  const std::string deep(40, '[');
  const Bad kChat[] = {
      {"", "body"},
      {"[]", "want an object"},
      {R"({"messages":[]})", "messages: want an array"},
      {R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content: is missing"},
      {R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":""}}]}]})",
       "messages[0].content[0].image_url.url: want data:"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,***"}}]}]})",
       "not base64"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]})",
       "tools: this server does not call tools"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}})",
       "response_format"},
      {R"({"messages":[{"role":"user","content":"x"}],"temprature":1})",
       "temprature: unknown parameter"},
      {R"({"messages":[{"role":"user","content":"x"}],"n":0})", "n: want an integer"},
      {R"({"messages":[{"role":"user","content":"x"}],"n":17})", "n: want an integer"},
      {R"({"messages":[{"role":"user","content":"x"}],"max_tokens":1.5})", "max_tokens: want"},
      {R"({"messages":[{"role":"user","content":"x"}],"stream_options":{}})", "stream_options"},
      {R"({"messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"continuous_usage_stats":true}})",
       "stream_options.continuous_usage_stats: needs include_usage"},
      {R"({"messages":[{"role":"user","content":"x"}],"top_logprobs":2})", "top_logprobs: needs"},
      {R"({"messages":[{"role":"user","content":"x"}],"logit_bias":{"a":1}})", "logit_bias"},
      {R"({"messages":[{"role":"user","content":"x","content":"y"}]})", "content"},
      {R"({"messages":[{"role":"user","content":"x"}],"\u0001":1})", "unknown parameter \\001"},
      {deep.c_str(), "body"},
  };
  for (const Bad& bad : kChat) {
    const auto parsed = Chat(bad.body);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad.body;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(bad.says)) << bad.body;
  }
  const Bad kCompletion[] = {
      {R"({})", "prompt: is missing"},
      {R"({"prompt":[]})", "prompt: want a string or token ids"},
      {R"({"prompt":[-1]})", "prompt: want token ids"},
      {R"({"prompt":"a","echo":true})", "echo"},
      {R"({"prompt":"a","best_of":3})", "best_of"},
      {R"({"prompt":"a","suffix":"z"})", "suffix"},
      {R"({"prompt":["a","b"],"n":9})", "n: at most 16 answers"},
  };
  for (const Bad& bad : kCompletion) {
    const auto parsed = Completion(bad.body);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad.body;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(bad.says)) << bad.body;
  }
}

}  // namespace
}  // namespace tessera
