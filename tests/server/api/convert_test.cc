#include "server/api/convert.h"

#include <cmath>
#include <functional>
#include <limits>

#include "cache/policies/registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ConvertTest : public testing::Test {
 protected:
  ConvertTest() {
    model_.name = "demo";
    model_.text.vocab = 576;
    model_.image_token = 512;
    options_.model = &model_;
    options_.context_tokens = 100;
    options_.max_images = 2;
    options_.max_text_bytes = 1000;
    options_.default_policy = *ParsePolicy("none");
  }
  // Of the checks that need no prompt, then of the prompt.
  absl::Status Check(const v1::GenerateRequest& in) {
    if (auto request = ConvertRequest(in, options_); !request.ok()) return request.status();
    return ConvertPrompt(in, options_).status();
  }

  ModelConfig model_;
  ConvertOptions options_;
};

TEST_F(ConvertTest, FillsDefaultsFromTheModel) {
  model_.generation.temperature = 0.7f;
  model_.generation.top_k = 40;
  const auto request = ConvertRequest(TextRequest("hi"), options_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0.7f);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_FALSE(request->sampling.has_seed);
  EXPECT_EQ(request->stop.max_tokens, 0);  // not known yet
  EXPECT_EQ(request->top_logprobs, -1);
  EXPECT_EQ(request->policy, options_.default_policy);
}

TEST_F(ConvertTest, TakesWhatIsGiven) {
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
  const auto request = ConvertRequest(in, options_);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->id, "r1");
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_TRUE(request->sampling.has_seed);
  EXPECT_EQ(request->sampling.seed, 7u);
  EXPECT_EQ(request->stop.max_tokens, 5);
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

class BadRequestTest : public ConvertTest, public testing::WithParamInterface<BadRequestCase> {};

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
        BadRequestCase{"id_outside",
                       [](R* r) {
                         r->clear_content();
                         r->mutable_tokenized()->add_ids(1);
                         r->mutable_tokenized()->add_ids(576);
                       },
                       "tokenized.ids[1]"},
        BadRequestCase{"too_many_ids",
                       [](R* r) {
                         r->clear_content();
                         for (int i = 0; i < 101; ++i) r->mutable_tokenized()->add_ids(1);
                       },
                       "tokenized.ids", "LIMIT_EXCEEDED"},
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

TEST_F(ConvertTest, StopStringsAreLimited) {
  v1::GenerateRequest in = TextRequest("hi");
  for (int i = 0; i < 17; ++i) in.mutable_stopping()->add_stop("s" + std::to_string(i));
  EXPECT_THAT(View(ToGrpcStatus(Check(in))).field, testing::StartsWith("stopping.stop"));
}

TEST_F(ConvertTest, AbsurdlyManyPartsAreRefused) {
  v1::GenerateRequest in;
  for (int i = 0; i < 100001; ++i) in.add_content();
  EXPECT_EQ(View(ToGrpcStatus(Check(in))).reason, "LIMIT_EXCEEDED");
}

TEST_F(ConvertTest, PolicyOutsideTheAllowedListIsRefused) {
  options_.allowed_policies = {"akvq"};
  v1::GenerateRequest in = TextRequest("hi");
  EXPECT_TRUE(Check(in).ok());  // the server's default needs no permission
  in.mutable_kv_policy()->set_text("none");
  const ErrorView error = View(ToGrpcStatus(Check(in)));
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.reason, "KV_POLICY_NOT_ALLOWED");
  EXPECT_EQ(error.field, "kv_policy.text");
}

TEST_F(ConvertTest, ContentBecomesOneUserTurn) {
  v1::GenerateRequest in;
  in.add_content()->set_text("What is ");
  in.add_content()->mutable_image()->set_data("png");
  in.add_content()->set_text("?");
  const auto prompt = ConvertPrompt(in, options_);
  ASSERT_TRUE(prompt.ok());
  ASSERT_EQ(prompt->input.messages.size(), 1u);
  EXPECT_EQ(prompt->input.messages[0].role, ChatMessage::Role::kUser);
  ASSERT_EQ(prompt->input.messages[0].parts.size(), 3u);
  EXPECT_TRUE(prompt->input.messages[0].parts[1].is_image);
  ASSERT_EQ(prompt->input.images.size(), 1u);
  EXPECT_EQ(prompt->paths.images[0], "content[1].image");
  EXPECT_TRUE(prompt->input.raw.empty());
}

TEST_F(ConvertTest, RawContentJoinsAdjacentTexts) {
  v1::GenerateRequest in;
  in.set_apply_template(false);
  in.add_content()->set_text("a");
  in.add_content()->set_text("b");
  in.add_content()->mutable_image()->set_data("x");
  in.add_content()->mutable_image()->set_data("y");
  in.add_content()->set_text("c");
  const auto prompt = ConvertPrompt(in, options_);
  ASSERT_TRUE(prompt.ok());
  ASSERT_EQ(prompt->input.raw.size(), 4u);
  EXPECT_EQ(prompt->input.raw[0].text, "ab");
  EXPECT_EQ(prompt->input.raw[1].kind, PromptPiece::Kind::kImage);
  EXPECT_EQ(prompt->input.raw[3].text, "c");
  EXPECT_TRUE(prompt->input.messages.empty());
}

TEST_F(ConvertTest, MaxTokensComesFromTheContext) {
  v1::GenerateRequest in = TextRequest("hi");
  Request request;
  request.prompt.ids.resize(90);
  ASSERT_TRUE(SetMaxTokens(in, 100, 64, &request).ok());
  EXPECT_EQ(request.stop.max_tokens, 10);
  request.prompt.ids.resize(20);
  ASSERT_TRUE(SetMaxTokens(in, 100, 64, &request).ok());
  EXPECT_EQ(request.stop.max_tokens, 64);
  request.prompt.ids.resize(100);
  EXPECT_EQ(View(ToGrpcStatus(SetMaxTokens(in, 100, 64, &request))).field, "content");
  in.mutable_stopping()->set_max_tokens(11);
  request.prompt.ids.resize(90);
  request.stop.max_tokens = 11;
  EXPECT_EQ(View(ToGrpcStatus(SetMaxTokens(in, 100, 64, &request))).field, "stopping.max_tokens");
  in.mutable_stopping()->clear_max_tokens();
  request.stop.min_tokens = 11;
  EXPECT_EQ(View(ToGrpcStatus(SetMaxTokens(in, 100, 64, &request))).field, "stopping.min_tokens");
}

TEST_F(ConvertTest, ExplanationsAreTheOperatorsToAllow) {
  v1::GenerateRequest in = TextRequest("hi");
  in.mutable_response()->set_explain(true);
  const ErrorView error = View(ToGrpcStatus(Check(in)));
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.reason, "EXPLAIN_NOT_ALLOWED");
  options_.allow_explain = true;
  EXPECT_TRUE(ConvertRequest(in, options_)->explain);
  EXPECT_FALSE(ConvertRequest(TextRequest("hi"), options_)->explain);
}

TEST_F(ConvertTest, TheCommitPointIsAfterTheLastImage) {
  v1::GenerateRequest in = TextRequest("hi");
  Request request;
  request.prompt.ids.resize(30);
  ASSERT_TRUE(SetCommitPoint(in, &request).ok());
  EXPECT_EQ(request.commit_tokens, 0);
  in.mutable_kv_policy()->set_commit_at(v1::KvPolicy::COMMIT_AT_QUESTION);
  EXPECT_EQ(View(ToGrpcStatus(SetCommitPoint(in, &request))).field, "kv_policy.commit_at");
  request.prompt.images = {{.begin = 2}, {.begin = 12}};
  request.prompt.image_tokens = 16;
  ASSERT_TRUE(SetCommitPoint(in, &request).ok());
  EXPECT_EQ(request.commit_tokens, 20);
  in.mutable_kv_policy()->set_commit_at(v1::KvPolicy::COMMIT_AT_PROMPT);
  ASSERT_TRUE(SetCommitPoint(in, &request).ok());
  EXPECT_EQ(request.commit_tokens, 0);
  in.mutable_kv_policy()->set_commit_at(static_cast<v1::KvPolicy::CommitAt>(7));
  EXPECT_EQ(View(ToGrpcStatus(SetCommitPoint(in, &request))).field, "kv_policy.commit_at");
}

// A vocabulary of three: a word, half a character, nothing.
class TinyTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> Encode(absl::string_view, bool) const override { return {}; }
  std::string TokenBytes(int32_t id) const override {
    return id == 0 ? " cat" : id == 1 ? "\xe2\x82" : "";
  }
  std::string Piece(int32_t id) const override {
    return id == 0 ? "\u2581cat" : id == 1 ? "<0xE2>" : id == 2 ? "</s>" : "";
  }
  int vocab_size() const override { return 3; }
  bool IsControl(int32_t id) const override { return id == 2; }
  int32_t bos() const override { return 1; }
  bool add_bos() const override { return true; }
  int32_t IdOf(absl::string_view) const override { return -1; }
};

TEST(ReplyTest, DeltaHoldsWhatWasAsked) {
  Event event = TextEvent(" cat", {0, 1});
  event.logprobs = {{0, -0.5f, {{0, -0.5f}, {1, -2.0f}, {2, -3.0f}}}};
  const TinyTokenizer tokenizer;
  v1::TokenDelta plain;
  ASSERT_TRUE(ConvertDelta(event, {}, tokenizer, &plain));
  EXPECT_EQ(plain.text(), " cat");
  EXPECT_EQ(plain.tokens(), 2);
  EXPECT_EQ(plain.token_ids_size() + plain.logprobs_size(), 0);
  v1::TokenDelta full;
  ASSERT_TRUE(ConvertDelta(event, {true, true}, tokenizer, &full));
  EXPECT_EQ(full.token_ids_size(), 2);
  ASSERT_EQ(full.logprobs_size(), 1);
  ASSERT_EQ(full.logprobs(0).top_size(), 3);
  EXPECT_EQ(full.logprobs(0).top(0).text(), " cat");
  EXPECT_EQ(full.logprobs(0).top(1).text(), "<0xE2>");  // its bytes alone are not UTF-8
  EXPECT_EQ(full.logprobs(0).top(2).text(), "</s>");
  EXPECT_FALSE(ConvertDelta(Event(), {}, tokenizer, &plain));
}

TEST(ReplyTest, ExplanationNamesFormatsAndTokens) {
  Explanation in;
  in.tokens = {0, 2, 2, 0};
  in.images = {{1, 2}};
  in.commit_tokens = 3;
  in.bytes_per_token[static_cast<int>(Format::kToken2)] = 288;
  in.layers = {{{0, 1, 4, 1}, 4096, {1, 2, 3}}};
  in.score_name = "largest |h|";
  v1::Explanation out;
  ProcessorConfig processor;
  processor.do_pad = true;
  ConvertExplanation(in, processor, TinyTokenizer(), &out);
  ASSERT_EQ(out.formats_size(), kNumFormats);
  EXPECT_EQ(out.formats(3).name(), "token2");
  EXPECT_EQ(out.formats(3).k_bits(), 2);
  EXPECT_EQ(out.formats(3).bytes_per_token(), 288);
  EXPECT_EQ(out.layers(0).stored(), std::string("\0\1\4\1", 4));
  EXPECT_EQ(out.layers(0).bytes(), 4096);
  EXPECT_THAT(out.layers(0).score(), ElementsAre(1, 2, 3));
  EXPECT_EQ(out.score(), "largest |h|");
  EXPECT_EQ(out.images(0).first(), 1);
  EXPECT_EQ(out.images(0).count(), 2);
  EXPECT_EQ(out.image_fit(), v1::Explanation::IMAGE_FIT_CONTAIN);
  EXPECT_THAT(out.text(), ElementsAre(" cat", "", "", " cat"));
}

TEST(ReplyTest, FinishedSaysWhy) {
  Event event = LastEvent();
  event.stop_id = 2;
  event.usage.prompt_tokens = 10;
  event.usage.kv_mean_bits = 16;
  event.usage.policy = "none";
  event.usage.queue_seconds = 0.5;
  v1::Finished by_id;
  ConvertFinished(event, &by_id);
  EXPECT_EQ(by_id.reason(), v1::Finished::REASON_STOP);
  EXPECT_EQ(by_id.stop_token_id(), 2);
  EXPECT_EQ(by_id.usage().prompt_tokens(), 10);
  EXPECT_EQ(by_id.usage().kv_policy(), "none");
  EXPECT_EQ(by_id.usage().times().queue(), 0.5);
  event.stop_string = "END";
  v1::Finished by_string;
  ConvertFinished(event, &by_string);
  EXPECT_EQ(by_string.stop_string(), "END");
  event = LastEvent();
  event.reason = FinishReason::kLength;
  v1::Finished by_length;
  ConvertFinished(event, &by_length);
  EXPECT_EQ(by_length.reason(), v1::Finished::REASON_LENGTH);
  EXPECT_EQ(by_length.matched_case(), v1::Finished::MATCHED_NOT_SET);
}

}  // namespace
}  // namespace tessera
