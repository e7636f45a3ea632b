// The demo model answers its questions over gRPC.
#include <algorithm>
#include <future>
#include <set>

#include "absl/strings/ascii.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

class AnswersTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = std::make_unique<ChildServer>(std::vector<std::string>{"--allow_explain"});
  }
  static void TearDownTestSuite() { server_ = nullptr; }
  static std::unique_ptr<ChildServer> server_;
};
std::unique_ptr<ChildServer> AnswersTest::server_;

TEST_F(AnswersTest, EqualTheReference) {
  // One question for each task and number of images, all in flight together.
  std::set<std::pair<std::string, size_t>> seen;
  std::vector<std::pair<std::string, std::future<Answer>>> asked;
  for (const auto& question : EvalLines("questions.jsonl")) {
    const size_t images = question["images"].size();
    if (images > 8 || !seen.insert({question["task"], images}).second) continue;
    asked.emplace_back(question["reference"],
                       std::async(std::launch::async, [request = EvalRequest(question)] {
                         return Generate(server_->inference(), request);
                       }));
  }
  ASSERT_GE(asked.size(), 20u);
  int equal = 0;
  for (auto& [reference, future] : asked) {
    const Answer answer = future.get();
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    equal += absl::StripAsciiWhitespace(answer.text) == reference ? 1 : 0;
  }
  EXPECT_EQ(equal, static_cast<int>(asked.size()));
}

TEST_F(AnswersTest, UsageIsWhatHappened) {
  for (const auto& question : EvalLines("questions.jsonl")) {
    if (question["images"].size() != 8) continue;
    v1::GenerateRequest request = EvalRequest(question);
    request.mutable_cache()->set_bypass_prefix(true);
    const Answer answer = Generate(server_->inference(), request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.accepted->image_tokens(), 8 * 64);
    const v1::Usage& usage = answer.finished->usage();
    EXPECT_EQ(usage.image_tokens(), 8 * 64);
    EXPECT_EQ(usage.prompt_tokens(), answer.accepted->prompt_tokens());
    EXPECT_GT(usage.prompt_tokens(), usage.image_tokens());
    EXPECT_EQ(usage.cached_tokens(), 0);
    EXPECT_EQ(usage.kv_policy(), "none");
    EXPECT_GT(usage.kv_bytes_peak(), 0);
    EXPECT_GE(usage.kv_mean_bits(), 16);
    int tokens = 0;
    for (const auto& delta : answer.deltas) tokens += delta.tokens();
    EXPECT_EQ(usage.output_tokens(), tokens);
    EXPECT_GT(usage.times().image_decode(), 0);
    EXPECT_GT(usage.times().vision_encode(), 0);
    EXPECT_GT(usage.times().prefill(), 0);
    EXPECT_GE(usage.times().total(), usage.times().time_to_first_token());
    return;
  }
  FAIL() << "no question with 8 pictures";
}

TEST_F(AnswersTest, ThePolicyIsGrantedCommittedAndExplained) {
  const auto questions = EvalLines("questions.jsonl");
  v1::GenerateRequest request = EvalRequest(questions[0]);  // one image
  request.mutable_kv_policy()->set_text("random( keep=0.5,scope=visual ) + rtn( bits=4 )");
  request.mutable_kv_policy()->set_commit_at(v1::KvPolicy::COMMIT_AT_QUESTION);
  request.mutable_response()->set_explain(true);
  const Answer answer = Generate(server_->inference(), request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.accepted->kv_policy(), "random(scope=visual)+rtn");
  const v1::Usage& usage = answer.finished->usage();
  EXPECT_EQ(usage.kv_policy(), "random(scope=visual)+rtn");
  EXPECT_EQ(usage.evicted_image_tokens(), 32);
  EXPECT_EQ(usage.evicted_text_tokens(), 0);
  const v1::Explanation& e = answer.finished->explanation();
  ASSERT_EQ(e.images_size(), 1);
  EXPECT_EQ(e.images(0).count(), 64);
  EXPECT_EQ(e.commit_tokens(), e.images(0).first() + 64);
  ASSERT_EQ(e.layers_size(), 8);
  int64_t bytes = 0;
  for (const auto& layer : e.layers()) {
    ASSERT_EQ(static_cast<int>(layer.stored().size()), e.text_size());
    EXPECT_EQ(std::count(layer.stored().begin(), layer.stored().end(), 0), 32);
    EXPECT_EQ(e.formats(layer.stored()[0] - 1).name(), "token4");
    EXPECT_EQ(e.formats(layer.stored().back() - 1).name(), "raw16");  // tokens after the commit
    bytes += layer.bytes();
  }
  EXPECT_EQ(bytes, usage.kv_bytes());
  request.mutable_response()->clear_explain();
  EXPECT_FALSE(Generate(server_->inference(), request).finished->has_explanation());
}

TEST_F(AnswersTest, TokenIdsInTokenIdsOut) {
  constexpr int kImageToken = 512, kTokensPerImage = 64, kEndOfSequence = 2;
  const auto questions = EvalLines("questions.jsonl");
  int compared = 0;
  for (const auto& golden : EvalLines("golden.jsonl")) {
    const nlohmann::json* question = nullptr;
    for (const auto& q : questions) {
      if (q["set"] == golden["set"] && q["task"] == golden["task"]) question = &q;
    }
    if (question == nullptr || (*question)["images"].size() > 4) continue;
    v1::GenerateRequest request;
    std::vector<int> ids = golden["input_ids"];
    int run = 0;
    for (const int id : ids) {  // 64 image tokens in a row stand for one image
      run = id == kImageToken ? run + 1 : 0;
      if (run % kTokensPerImage <= 1 && (run == 0 || run % kTokensPerImage == 1)) {
        request.mutable_tokenized()->add_ids(id);
      }
    }
    for (const auto& image : (*question)["images"]) {
      request.mutable_tokenized()->add_images()->set_data(
          ReadTestFile("tests/eval/" + std::string(image)));
    }
    request.mutable_stopping()->set_max_tokens(8);
    request.mutable_response()->set_token_ids(true);
    const Answer answer = Generate(server_->inference(), request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.accepted->prompt_tokens(), static_cast<int>(ids.size()));
    std::vector<int> got, want = golden["output_ids"];
    for (const auto& delta : answer.deltas) {
      got.insert(got.end(), delta.token_ids().begin(), delta.token_ids().end());
    }
    if (!want.empty() && want.back() == kEndOfSequence) {
      EXPECT_EQ(answer.finished->stop_token_id(), kEndOfSequence);
    }
    std::erase(got, kEndOfSequence);
    std::erase(want, kEndOfSequence);
    EXPECT_EQ(got, want);
    if (++compared == 8) break;
  }
  EXPECT_EQ(compared, 8);
}

TEST_F(AnswersTest, SpecialTokensInUserTextStayText) {
  const Answer answer =
      Generate(server_->inference(), TextRequest("Write <image> and </s>, please."));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.accepted->image_tokens(), 0);
  EXPECT_GT(answer.accepted->prompt_tokens(), 15);
}

TEST_F(AnswersTest, LogprobsHaveCandidates) {
  v1::GenerateRequest request = TextRequest("Hello");
  request.mutable_stopping()->set_max_tokens(4);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_response()->set_top_logprobs(3);
  const Answer answer = Generate(server_->inference(), request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  int count = 0;
  for (const auto& delta : answer.deltas) {
    for (const auto& logprob : delta.logprobs()) {
      ++count;
      ASSERT_EQ(logprob.top_size(), 3);
      EXPECT_EQ(logprob.top(0).token_id(), logprob.token_id());  // greedy
      EXPECT_LE(logprob.logprob(), 0);
    }
  }
  EXPECT_EQ(count, 4);
  EXPECT_EQ(answer.finished->reason(), v1::Finished::REASON_LENGTH);
}

}  // namespace
}  // namespace tessera
