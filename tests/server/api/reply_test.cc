#include "server/api/reply.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::ElementsAre;

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
