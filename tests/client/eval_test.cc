#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/client/eval_report.h"
#include "server/client/prompt_parts.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;

Question MakeQuestion(const std::string& task, const std::string& answer,
                      const std::string& reference) {
  return {task, "prompt", answer, reference, {}};
}

TEST(ClientEval, ReportCounts) {
  EvalReport report;
  report.Add(MakeQuestion("b", "yes", "yes"), {true, " yes\n", 100});
  report.Add(MakeQuestion("a", "yes", "no"), {true, "no", 200});
  report.Add(MakeQuestion("a", "1", "1"), {true, "1", 300});
  report.Add(MakeQuestion("a", "", ""), {false, "", 0});  // a failed call is never right
  EXPECT_EQ(report.ToJson().dump(),
            R"({"questions":4,"accuracy":{"a":0.3333333333333333,"b":1.0},"mean_accuracy":0.5,)"
            R"("agreement":0.75,"kv_bytes_per_token":200.0,"failed":1})");
  EXPECT_EQ(report.RenderTable(),
            "task  questions  right  accuracy  agreement  failed\n"
            "---------------------------------------------------\n"
            "a             3      1     0.333      0.667       1\n"
            "b             1      1     1.000      1.000       0\n"
            "all           4      2     0.500      0.750       1\n");
}

TEST(ClientEval, ReadsTheProjectsQuestions) {
  const auto questions = ReadQuestions(TESSERA_SOURCE_DIR "/tests/eval/questions.jsonl");
  ASSERT_TRUE(questions.ok()) << questions.status();
  EXPECT_EQ(questions->size(), 375u);
  for (const Question& question : *questions) {
    const auto request = QuestionRequest(question);
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_FALSE(request->apply_template());
    EXPECT_EQ(request->stopping().max_tokens(), 8);
    EXPECT_TRUE(request->sampling().has_temperature());
    std::string text;
    size_t images = 0;
    for (const auto& part : request->content()) {
      text += part.has_image() ? "<image>" : part.text();
      images += part.has_image();
    }
    EXPECT_EQ(text, question.prompt);
    EXPECT_EQ(images, question.images.size());
  }
}

TEST(ClientEval, BadQuestionsNameTheLine) {
  const std::string good = R"({"task":"t","prompt":"p","answer":"a","reference":"r","x":1})";
  const std::pair<std::string, std::string> cases[] = {
      {good + "\n\n{\"task\": \"t\"}\n", ":3: \"prompt\" is missing"},
      {"nonsense", ":1: not valid JSON"},
      {"\n \n", ": no questions in it"}};
  for (const auto& [content, message] : cases) {
    const std::string path = WriteFile("q.jsonl", content);
    EXPECT_EQ(ReadQuestions(path).status().message(), path + message);
  }
}

class ClientEvalCommand : public testing::Test {
 protected:
  // Ten questions of two tasks, each with one picture.
  void SetUp() override {
    WriteFile("i.png", "x");
    std::string lines;
    for (int i = 0; i < 10; ++i) {
      lines += R"({"task": ")" + std::string(i % 2 == 0 ? "even" : "odd") +
               R"(", "images": ["i.png"], "prompt": "A <image> )" + std::to_string(i) +
               R"(", "answer": ")" + std::to_string(i) + R"(", "reference": "0"})" + "\n";
    }
    questions_ = WriteFile("q.jsonl", lines);
  }
  std::string questions_;
};

// The prompt's last word.
Reply LastWord(const v1::GenerateRequest& request, int) {
  const std::string text = Flatten(request.content());
  Reply reply = Answer(text.substr(text.rfind(' ')));
  reply.usage.set_kv_bytes_per_token(1024);
  return reply;
}

TEST_F(ClientEvalCommand, ScoresAndPrintsJsonLast) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    EXPECT_EQ(request.kv_policy().text(), "none");
    if (Flatten(request.content()) == "A [1] 3") return Answer("wrong");
    return LastWord(request, call);
  });
  const Outcome outcome =
      RunCommand({"eval", "--address", server.address(), "--questions", questions_, "--json",
                  "--kv_policy=none", "--concurrency=3", "--show_wrong"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_LE(server.most_in_flight(), 3);
  const std::vector<std::string> lines = absl::StrSplit(absl::StripSuffix(outcome.out, "\n"), '\n');
  // The question that got no KV figure counts as one of 0 bytes: it was answered.
  EXPECT_EQ(lines.back(),
            R"({"questions":10,"accuracy":{"even":1.0,"odd":0.8},"mean_accuracy":0.9,)"
            R"("agreement":0.1,"kv_bytes_per_token":921.6})");
  EXPECT_THAT(outcome.out,
              HasSubstr("question 4 (odd): got \"wrong\", answer \"3\", reference \"0\"\n"));
}

TEST_F(ClientEvalCommand, LimitFailuresAndThreshold) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    Reply reply = LastWord(request, call);
    if (Flatten(request.content()) == "A [1] 1") reply.status = {grpc::StatusCode::INTERNAL, "no"};
    return reply;
  });
  const Outcome failed = RunCommand(
      {"eval", "--address", server.address(), "--questions", questions_, "--limit=2", "--json"});
  EXPECT_EQ(failed.code, 1);
  EXPECT_THAT(failed.out, HasSubstr("{\"questions\":2,"));
  EXPECT_THAT(failed.out, HasSubstr("\"failed\":1}"));
  EXPECT_THAT(failed.err, HasSubstr("question 2: INTERNAL: no"));
  const Args one = {"eval", "--address", server.address(), "--questions", questions_, "--limit=1"};
  EXPECT_EQ(RunCommand(one).code, 0);
  Args strict = {"eval",     "--address", server.address(),   "--questions",
                 questions_, "--limit=1", "--min_agreement=1"};
  EXPECT_EQ(RunCommand(strict).code, 0);
  WriteFile("q.jsonl", R"({"task":"t","prompt":"A 7","answer":"7","reference":"8"})");
  EXPECT_EQ(RunCommand(strict).code, 1);
}

TEST_F(ClientEvalCommand, MissingPictureIsFoundBeforeAnythingIsAsked) {
  FakeServer server(LastWord);
  WriteFile("q.jsonl", ReadAll(questions_) +
                           R"({"task":"t","prompt":"<image>","answer":"","reference":"",)"
                           R"("images":["gone.png"]})");
  const Outcome outcome =
      RunCommand({"eval", "--address", server.address(), "--questions", questions_});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("question 11: "));
  EXPECT_TRUE(server.requests().empty());
  EXPECT_EQ(RunCommand({"eval"}).code, 2);
}

}  // namespace
}  // namespace tessera::client
