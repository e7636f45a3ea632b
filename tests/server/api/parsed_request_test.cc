#include "server/api/parsed_request.h"

#include <cmath>
#include <functional>
#include <limits>

#include "cache/policies/registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/api/error_details.h"
#include "server/net/https_url.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ParsedRequestTest : public testing::Test {
 protected:
  ParsedRequestTest() {
    model_.name = "demo";
    model_.text.vocab = 576;
    model_.image_token = 512;
    rules_.model = &model_;
    rules_.max_images = 2;
    rules_.max_text_bytes = 1000;
    rules_.default_policy = *ParsePolicy("none");
  }
  absl::Status Check(const v1::GenerateRequest& in) { return ParseRequest(in, rules_).status(); }
  // Parses `in` and completes it with a default of 64 tokens and a prompt of this length.
  absl::StatusOr<Request> Complete(const v1::GenerateRequest& in, Prompt prompt) {
    auto parsed = ParseRequest(in, rules_);
    if (!parsed.ok()) return parsed.status();
    parsed->default_max_tokens = 64;
    return CompleteRequest(*std::move(parsed), std::move(prompt), 100);
  }
  absl::StatusOr<Request> Complete(const v1::GenerateRequest& in, int prompt_tokens) {
    Prompt prompt;
    prompt.ids.resize(static_cast<size_t>(prompt_tokens));
    return Complete(in, std::move(prompt));
  }

  ModelConfig model_;
  RequestRules rules_;
};

TEST_F(ParsedRequestTest, FillsDefaultsFromTheModel) {
  model_.generation.temperature = 0.7f;
  model_.generation.top_k = 40;
  const auto parsed = ParseRequest(TextRequest("hi"), rules_);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Request* request = &parsed->request;
  EXPECT_EQ(request->sampling.temperature, 0.7f);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_FALSE(request->sampling.has_seed);
  EXPECT_FALSE(parsed->max_tokens.has_value());
  EXPECT_EQ(request->top_logprobs, -1);
  EXPECT_EQ(request->policy, rules_.default_policy);
}

TEST_F(ParsedRequestTest, TakesWhatIsGiven) {
  model_.generation.temperature = 0.7f;
  v1::GenerateRequest in = TextRequest("hi");
  in.set_request_id("r1");
  in.set_model("demo");
  in.mutable_sampling()->set_temperature(0);
  in.mutable_sampling()->set_seed(7);
  in.mutable_stopping()->set_max_tokens(5);
  in.mutable_stopping()->add_stop("END");
  in.mutable_stopping()->add_stop_token_ids(9);
  in.mutable_response()->set_top_logprobs(0);
  in.mutable_response()->set_include_stop(true);
  in.mutable_cache()->set_salt("tenant");
  in.mutable_cache()->set_bypass_prefix(true);
  in.set_priority(-3);
  const auto parsed = ParseRequest(in, rules_);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Request* request = &parsed->request;
  EXPECT_EQ(request->id, "r1");
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_TRUE(request->sampling.has_seed);
  EXPECT_EQ(request->sampling.seed, 7u);
  EXPECT_EQ(request->stop.max_tokens, 5);
  EXPECT_EQ(parsed->max_tokens, 5);
  EXPECT_TRUE(parsed->reply.logprobs);
  EXPECT_THAT(request->stop.strings, ElementsAre("END"));
  EXPECT_THAT(request->stop.token_ids, ElementsAre(9));
  EXPECT_TRUE(request->stop.include_stop);
  EXPECT_EQ(request->top_logprobs, 0);
  EXPECT_EQ(request->salt, "tenant");
  EXPECT_TRUE(request->bypass_prefix);
  EXPECT_EQ(request->priority, -3);
}

struct BadRequestCase {
  const char* name;
  std::function<void(v1::GenerateRequest*)> change;  // of TextRequest("hi")
  const char* field;
  const char* reason = "INVALID_FIELD";
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
};

class BadRequestTest : public ParsedRequestTest,
                       public testing::WithParamInterface<BadRequestCase> {};

TEST_P(BadRequestTest, NamesTheField) {
  v1::GenerateRequest in = TextRequest("hi");
  GetParam().change(&in);
  const ErrorView error = View(ToGrpcStatus(Check(in)));
  EXPECT_EQ(error.code, GetParam().code) << error.message;
  EXPECT_EQ(error.field, GetParam().field) << error.message;
  EXPECT_EQ(error.reason, GetParam().reason) << error.message;
}

using R = v1::GenerateRequest;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

INSTANTIATE_TEST_SUITE_P(
    All, BadRequestTest,
    testing::Values(
        BadRequestCase{"no_prompt", [](R* r) { r->clear_content(); }, "content"},
        BadRequestCase{"two_prompts", [](R* r) { r->mutable_tokenized()->add_ids(1); }, "content"},
        BadRequestCase{"empty_part", [](R* r) { r->add_content(); }, "content[1]"},
        BadRequestCase{"no_image_bytes",
                       [](R* r) { r->add_content()->mutable_image()->set_mime("image/png"); },
                       "content[1].image"},
        BadRequestCase{"url_although_none_is_fetched",
                       [](R* r) { r->add_content()->mutable_image()->set_url("https://a.test/"); },
                       "content[1].image.url"},
        BadRequestCase{"data_and_url",
                       [](R* r) {
                         r->add_content()->mutable_image()->set_url("https://a.test/");
                         r->mutable_content(1)->mutable_image()->set_data("x");
                       },
                       "content[1].image"},
        BadRequestCase{"too_many_images",
                       [](R* r) {
                         for (int i = 0; i < 3; ++i)
                           r->add_content()->mutable_image()->set_data("x");
                       },
                       "content[3].image", "LIMIT_EXCEEDED"},
        BadRequestCase{"too_much_text",
                       [](R* r) { r->add_content()->set_text(std::string(999, 'a')); },
                       "content[1].text", "LIMIT_EXCEEDED"},
        BadRequestCase{"no_role",
                       [](R* r) {
                         r->clear_content();
                         r->add_messages()->add_content()->set_text("x");
                       },
                       "messages[0].role"},
        BadRequestCase{"raw_messages",
                       [](R* r) {
                         r->clear_content();
                         r->add_messages()->set_role(v1::Message::ROLE_USER);
                         r->set_apply_template(false);
                       },
                       "apply_template"},
        BadRequestCase{"template_for_ids",
                       [](R* r) {
                         r->clear_content();
                         r->mutable_tokenized()->add_ids(1);
                         r->set_apply_template(true);
                       },
                       "apply_template"},
        BadRequestCase{"no_ids",
                       [](R* r) {
                         r->clear_content();
                         r->mutable_tokenized();
                       },
                       "tokenized.ids"},
        BadRequestCase{"model", [](R* r) { r->set_model("gpt"); }, "model", "MODEL_NOT_FOUND",
                       grpc::StatusCode::NOT_FOUND},
        BadRequestCase{"request_id", [](R* r) { r->set_request_id("a b"); }, "request_id"},
        BadRequestCase{"long_request_id", [](R* r) { r->set_request_id(std::string(129, 'a')); },
                       "request_id"},
        BadRequestCase{"nan", [](R* r) { r->mutable_sampling()->set_temperature(kNan); },
                       "sampling.temperature"},
        BadRequestCase{"infinite", [](R* r) { r->mutable_sampling()->set_temperature(kInf); },
                       "sampling.temperature"},
        BadRequestCase{"negative_top_k", [](R* r) { r->mutable_sampling()->set_top_k(-1); },
                       "sampling.top_k"},
        BadRequestCase{"top_p", [](R* r) { r->mutable_sampling()->set_top_p(0); },
                       "sampling.top_p"},
        BadRequestCase{"min_p", [](R* r) { r->mutable_sampling()->set_min_p(1); },
                       "sampling.min_p"},
        BadRequestCase{"penalty", [](R* r) { r->mutable_sampling()->set_repetition_penalty(0); },
                       "sampling.repetition_penalty"},
        BadRequestCase{"max_tokens", [](R* r) { r->mutable_stopping()->set_max_tokens(0); },
                       "stopping.max_tokens"},
        BadRequestCase{"min_tokens", [](R* r) { r->mutable_stopping()->set_min_tokens(-1); },
                       "stopping.min_tokens"},
        BadRequestCase{"stop_id", [](R* r) { r->mutable_stopping()->add_stop_token_ids(-1); },
                       "stopping.stop_token_ids[0]"},
        BadRequestCase{"top_logprobs", [](R* r) { r->mutable_response()->set_top_logprobs(21); },
                       "response.top_logprobs"},
        BadRequestCase{"logprobs_contradiction",
                       [](R* r) {
                         r->mutable_response()->set_logprobs(false);
                         r->mutable_response()->set_top_logprobs(3);
                       },
                       "response.top_logprobs"},
        BadRequestCase{"policy", [](R* r) { r->mutable_kv_policy()->set_text("zip(9)"); },
                       "kv_policy.text"},
        BadRequestCase{"commit_at",
                       [](R* r) {
                         r->mutable_kv_policy()->set_commit_at(
                             static_cast<v1::KvPolicy::CommitAt>(7));
                       },
                       "kv_policy.commit_at"},
        BadRequestCase{"salt", [](R* r) { r->mutable_cache()->set_salt(std::string(257, 's')); },
                       "cache.salt"},
        BadRequestCase{"unknown_sampling_field",
                       [](R* r) {
                         auto* sampling = r->mutable_sampling();
                         sampling->GetReflection()->MutableUnknownFields(sampling)->AddVarint(77,
                                                                                              1);
                       },
                       "sampling", "UNKNOWN_FIELD"},
        BadRequestCase{"unknown_nested_field",
                       [](R* r) {
                         auto* image = r->add_content()->mutable_image();
                         image->set_data("x");
                         image->GetReflection()->MutableUnknownFields(image)->AddVarint(9, 1);
                       },
                       "content[1].image", "UNKNOWN_FIELD"},
        BadRequestCase{"unknown_top_field",
                       [](R* r) { r->GetReflection()->MutableUnknownFields(r)->AddVarint(99, 1); },
                       "request", "UNKNOWN_FIELD"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(ParsedRequestTest, StopStringsAreLimited) {
  v1::GenerateRequest in = TextRequest("hi");
  for (int i = 0; i < 17; ++i) in.mutable_stopping()->add_stop("s" + std::to_string(i));
  EXPECT_THAT(View(ToGrpcStatus(Check(in))).field, testing::StartsWith("stopping.stop"));
}

TEST_F(ParsedRequestTest, AbsurdlyManyPartsAreRefused) {
  v1::GenerateRequest in;
  for (int i = 0; i < 100001; ++i) in.add_content();
  EXPECT_EQ(View(ToGrpcStatus(Check(in))).reason, "LIMIT_EXCEEDED");
}

TEST_F(ParsedRequestTest, PolicyOutsideTheAllowedListIsRefused) {
  rules_.allowed_policies = {"akvq"};
  v1::GenerateRequest in = TextRequest("hi");
  EXPECT_TRUE(Check(in).ok());  // the server's default needs no permission
  in.mutable_kv_policy()->set_text("none");
  const ErrorView error = View(ToGrpcStatus(Check(in)));
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.reason, "KV_POLICY_NOT_ALLOWED");
  EXPECT_EQ(error.field, "kv_policy.text");
}

TEST_F(ParsedRequestTest, ContentBecomesOneUserTurn) {
  v1::GenerateRequest in;
  in.add_content()->set_text("What is ");
  in.add_content()->mutable_image()->set_data("png");
  in.add_content()->set_text("?");
  const auto parsed = ParseRequest(in, rules_);
  ASSERT_TRUE(parsed.ok());
  const ParsedPrompt* prompt = &parsed->prompt;
  ASSERT_EQ(prompt->input.messages.size(), 1u);
  EXPECT_EQ(prompt->input.messages[0].role, ChatMessage::Role::kUser);
  ASSERT_EQ(prompt->input.messages[0].parts.size(), 3u);
  EXPECT_TRUE(prompt->input.messages[0].parts[1].is_image);
  ASSERT_EQ(prompt->input.images.size(), 1u);
  EXPECT_EQ(prompt->paths.images[0], "content[1].image");
  EXPECT_TRUE(prompt->input.raw.empty());
}

TEST_F(ParsedRequestTest, RawContentJoinsAdjacentTexts) {
  v1::GenerateRequest in;
  in.set_apply_template(false);
  in.add_content()->set_text("a");
  in.add_content()->set_text("b");
  in.add_content()->mutable_image()->set_data("x");
  in.add_content()->mutable_image()->set_data("y");
  in.add_content()->set_text("c");
  const auto parsed = ParseRequest(in, rules_);
  ASSERT_TRUE(parsed.ok());
  const ParsedPrompt* prompt = &parsed->prompt;
  ASSERT_EQ(prompt->input.raw.size(), 4u);
  EXPECT_EQ(prompt->input.raw[0].text, "ab");
  EXPECT_EQ(prompt->input.raw[1].kind, PromptPiece::Kind::kImage);
  EXPECT_EQ(prompt->input.raw[3].text, "c");
  EXPECT_TRUE(prompt->input.messages.empty());
}

TEST_F(ParsedRequestTest, ImagesKeepTheirBytesAndPaths) {
  const UrlRules urls = *UrlRules::Make({"a.test"}, /*allow_private=*/false);
  rules_.image_urls = &urls;
  rules_.max_images = 3;
  v1::GenerateRequest in;
  v1::Message* message = in.add_messages();
  message->set_role(v1::Message::ROLE_USER);
  message->add_content()->mutable_image()->set_url("https://a.test/1");
  message->add_content()->mutable_image()->set_data("given");
  message->mutable_content(1)->mutable_image()->set_mime("image/png");
  message->add_content()->mutable_image()->set_url("https://a.test/2");
  const auto parsed = ParseRequest(in, rules_);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const ParsedPrompt& prompt = parsed->prompt;
  ASSERT_EQ(prompt.input.images.size(), 3u);
  EXPECT_EQ(prompt.input.images[0].data, "");
  EXPECT_EQ(prompt.input.images[1].data, "given");
  EXPECT_EQ(prompt.input.images[1].mime, "image/png");
  EXPECT_THAT(prompt.paths.images,
              ElementsAre("messages[0].content[0].image", "messages[0].content[1].image",
                          "messages[0].content[2].image"));
  ASSERT_EQ(prompt.urls.size(), 2u);
  EXPECT_EQ(prompt.urls[0].image, 0u);
  EXPECT_EQ(prompt.urls[1].image, 2u);
  EXPECT_EQ(prompt.urls[1].url, "https://a.test/2");
  v1::GenerateRequest tokens;
  tokens.mutable_tokenized()->add_ids(1);
  tokens.mutable_tokenized()->add_images()->set_url("https://a.test/3");
  const auto tokenized = ParseRequest(tokens, rules_);
  ASSERT_TRUE(tokenized.ok()) << tokenized.status();
  EXPECT_THAT(tokenized->prompt.paths.images, ElementsAre("tokenized.images[0]"));
  EXPECT_EQ(tokenized->prompt.urls.size(), 1u);
}

TEST_F(ParsedRequestTest, MaxTokensComesFromTheContext) {
  const auto field = [](const absl::StatusOr<Request>& request) {
    return View(ToGrpcStatus(request.status())).field;
  };
  v1::GenerateRequest in = TextRequest("hi");
  EXPECT_EQ(Complete(in, 90)->stop.max_tokens, 10);
  EXPECT_EQ(Complete(in, 20)->stop.max_tokens, 64);
  in.mutable_stopping()->set_max_tokens(10);
  EXPECT_EQ(Complete(in, 90)->stop.max_tokens, 10);
  in.mutable_stopping()->set_max_tokens(11);
  EXPECT_EQ(field(Complete(in, 90)), "stopping.max_tokens");
  in.mutable_stopping()->clear_max_tokens();
  in.mutable_stopping()->set_min_tokens(11);
  EXPECT_EQ(field(Complete(in, 90)), "stopping.min_tokens");
  EXPECT_EQ(Complete(in, 89)->stop.min_tokens, 11);
}

TEST_F(ParsedRequestTest, ExplanationsAreTheOperatorsToAllow) {
  v1::GenerateRequest in = TextRequest("hi");
  in.mutable_response()->set_explain(true);
  const ErrorView error = View(ToGrpcStatus(Check(in)));
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.reason, "EXPLAIN_NOT_ALLOWED");
  rules_.allow_explain = true;
  EXPECT_TRUE(ParseRequest(in, rules_)->request.explain);
  EXPECT_FALSE(ParseRequest(TextRequest("hi"), rules_)->request.explain);
}

TEST_F(ParsedRequestTest, TheCommitPointIsAfterTheLastImage) {
  v1::GenerateRequest in = TextRequest("hi");
  EXPECT_EQ(Complete(in, 30)->commit_tokens, 0);
  in.mutable_kv_policy()->set_commit_at(v1::KvPolicy::COMMIT_AT_QUESTION);
  EXPECT_EQ(View(ToGrpcStatus(Complete(in, 30).status())).field, "kv_policy.commit_at");
  Prompt prompt;
  prompt.ids.resize(30);
  prompt.images = {{.begin = 2}, {.begin = 12}};
  prompt.image_tokens = 16;
  EXPECT_EQ(Complete(in, prompt)->commit_tokens, 20);
  in.mutable_kv_policy()->set_commit_at(v1::KvPolicy::COMMIT_AT_PROMPT);
  EXPECT_EQ(Complete(in, prompt)->commit_tokens, 0);
}

}  // namespace
}  // namespace tessera
