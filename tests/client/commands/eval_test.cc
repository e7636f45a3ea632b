#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/report/eval_html.h"
#include "client/report/eval_report.h"
#include "client/rpc/prompt_parts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"
#include "tests/support/paths.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;

Question MakeQuestion(const std::string& task, const std::string& answer,
                      const std::string& reference) {
  return {task, "prompt", answer, reference, {}};
}

TEST(ClientEval, ReportCounts) {
  EvalReport report;
  report.commit_at = "prompt";
  report.Add(MakeQuestion("b", "yes", "yes"), {true, " yes\n", "p", 100, 16, 0});
  report.Add(MakeQuestion("a", "yes", "no"), {true, "no", "p", 200, 4, 0.5});
  report.Add(MakeQuestion("a", "1", "1"), {true, "1", "p", 300, 4, 0.25});
  report.Add(MakeQuestion("a", "", ""), {});  // a failed call is never right
  EXPECT_EQ(report.ToJson({}).dump(),
            R"({"policy":"p","commit_at":"prompt","questions":4,)"
            R"("accuracy":{"a":0.3333333333333333,"b":1.0},"mean_accuracy":0.5,)"
            R"("agreement":0.75,"kv_bytes_per_token":200.0,"mean_bits":8.0,)"
            R"("evicted_share":0.25,"failed":1})");
  EXPECT_EQ(report.ToJson({"b"})["tasks_accuracy"], 1.0);
  EXPECT_EQ(report.Accuracy({"a", "b"}), 0.5);
  EXPECT_EQ(report.RenderTable(),
            "task  questions  right  accuracy  agreement  failed\n"
            "---------------------------------------------------\n"
            "a             3      1     0.333      0.667       1\n"
            "b             1      1     1.000      1.000       0\n"
            "all           4      2     0.500      0.750       1\n");
}

TEST(ClientEval, ReadsTheProjectsQuestions) {
  const auto questions = ReadQuestions(SourcePath("tests/eval/questions.jsonl"));
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
      {"nonsense", ":1: not valid JSON at byte 2"},
      {"\n \n", ": no questions in it"}};
  for (const auto& [content, message] : cases) {
    const std::string path = WriteFile("q.jsonl", content);
    EXPECT_EQ(ReadQuestions(path).status().message(), path + message);
  }
}

class ClientEvalCommand : public testing::Test {
 protected:
  // Ten questions of two tasks, each with one image.
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

// Returns the last word of the prompt.
Reply LastWord(const v1::GenerateRequest& request, int) {
  const std::string text = Flatten(request.content());
  Reply reply = Answer(text.substr(text.rfind(' ')));
  reply.usage.set_kv_bytes_per_token(1024);
  return reply;
}

TEST_F(ClientEvalCommand, ScoresAndPrintsJsonLast) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    EXPECT_EQ(request.kv_policy().text(), "none");
    EXPECT_EQ(request.kv_policy().commit_at(), v1::KvPolicy::COMMIT_AT_PROMPT);
    if (Flatten(request.content()) == "A [1] 3") return Answer("wrong");
    return LastWord(request, call);
  });
  const Outcome outcome =
      RunCommand({"eval", "--address", server.address(), "--questions", questions_, "--json",
                  "--kv_policy=none", "--concurrency=3", "--show_wrong"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_LE(server.most_in_flight(), 3);
  const std::vector<std::string> lines = absl::StrSplit(absl::StripSuffix(outcome.out, "\n"), '\n');
  // The question without KV bytes was answered, so it counts as one of 0 bytes.
  EXPECT_EQ(lines.back(),
            R"({"policy":"none","commit_at":"prompt","questions":10,)"
            R"("accuracy":{"even":1.0,"odd":0.8},"mean_accuracy":0.9,)"
            R"("agreement":0.1,"kv_bytes_per_token":921.6,"mean_bits":0.0,"evicted_share":0.0})");
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
  EXPECT_THAT(failed.out, HasSubstr("\"questions\":2,"));
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

TEST_F(ClientEvalCommand, ComparesPoliciesOnOneServer) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    EXPECT_EQ(request.kv_policy().commit_at(), v1::KvPolicy::COMMIT_AT_QUESTION);
    const bool small = request.kv_policy().text() == "rtn(bits=2)";
    Reply reply = LastWord(request, call);
    if (small && Flatten(request.content()) == "A [1] 3") reply = Answer("wrong");
    reply.usage.set_prompt_tokens(100);
    reply.usage.set_kv_policy(request.kv_policy().text());
    reply.usage.set_kv_mean_bits(small ? 2.25 : 16);
    reply.usage.set_kv_bytes_per_token(small ? 2304 : 16384);
    reply.usage.set_evicted_image_tokens(small ? 20 : 0);
    reply.usage.set_evicted_text_tokens(small ? 5 : 0);
    return reply;
  });
  const std::string page = WriteFile("report.html", "");
  const Outcome outcome = RunCommand({"eval", "--address", server.address(), "--questions",
                                      questions_, "--json", "--policies", "none; rtn(bits=2)",
                                      "--commit_at=question", "--tasks=odd", "--report", page});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = absl::StrSplit(absl::StripSuffix(outcome.out, "\n"), '\n');
  ASSERT_GE(lines.size(), 2u);
  EXPECT_THAT(lines[lines.size() - 2], HasSubstr(R"({"policy":"none","commit_at":"question",)"));
  EXPECT_EQ(
      lines.back(),
      R"x({"policy":"rtn(bits=2)","commit_at":"question","questions":10,)x"
      R"x("accuracy":{"even":1.0,"odd":0.8},"mean_accuracy":0.9,"tasks_accuracy":0.8,)x"
      R"x("agreement":0.1,"kv_bytes_per_token":2304.0,"mean_bits":2.25,"evicted_share":0.25})x");
  EXPECT_THAT(outcome.out, HasSubstr("rtn(bits=2)     0.900         0.800"));
  EXPECT_THAT(ReadAll(page), HasSubstr("<title>rtn(bits=2): accuracy 0.800, 2304 bytes per token"));

  const auto error = [&](const Args& more) {
    Args args = {"eval",        "--address", server.address(), "--commit_at=question",
                 "--questions", questions_};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome bad = RunCommand(args);
    EXPECT_NE(bad.code, 0);
    return bad.err;
  };
  EXPECT_THAT(error({"--policies=none;;rtn"}), HasSubstr("an empty policy"));
  EXPECT_THAT(error({"--policies=none", "--kv_policy=none"}), HasSubstr("exclude each other"));
  EXPECT_THAT(error({"--tasks=ood"}), HasSubstr("no question of task \"ood\""));
  EXPECT_THAT(error({"--report=/nowhere/r.html"}), HasSubstr("/nowhere/r.html: No such file"));
}

TEST(ClientEval, ParetoFront) {
  const std::vector<EvalPoint> points = {{"big", 16, 0.9},    {"same", 8, 0.9}, {"small", 2, 0.5},
                                         {"beaten", 4, 0.45}, {"mid", 4, 0.7},  {"tie", 4, 0.7}};
  EXPECT_THAT(ParetoFront(points), testing::ElementsAre(2, 4, 5, 1));
}

TEST(ClientEval, ThePageStandsAloneAndEscapes) {
  EvalReport report;
  report.commit_at = "prompt";
  report.Add(MakeQuestion("<b>task</b>", "a", "a"),
             {true, "a", "<script>\"x\"&\x01</script>", 1000, 4, 0});
  const std::string page = RenderEvalPage({report}, "q<i>.jsonl", {});
  for (const char* text :
       {"<script", "<b>task", "q<i>", "http://", "https://", "src=", "@import", "url(", "\x01"}) {
    EXPECT_THAT(page, testing::Not(HasSubstr(text)));
  }
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;&quot;x&quot;&amp;\xef\xbf\xbd&lt;/script&gt;"));
  EXPECT_THAT(RenderEvalPage({EvalReport()}, "q", {}), HasSubstr("No policy answered."));
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
