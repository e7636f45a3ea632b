#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/interrupt.h"
#include "client/commands/generate_line.h"
#include "client/rpc/prompt_parts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<json> Lines(const std::string& text) {
  std::vector<json> lines;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(json::parse(line.begin(), line.end(), nullptr, false));
    EXPECT_FALSE(lines.back().is_discarded()) << line;
  }
  return lines;
}

std::string Last(const v1::GenerateRequest& request) {
  const int n = request.messages_size();
  return Flatten(n > 0 ? request.messages(n - 1).content() : request.content());
}

TEST(ClientGenerate, AnswersInInputOrder) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    Reply reply = Answer(Last(request));
    // Earlier lines take longer.
    if (Last(request) < "4") reply.first_delay = absl::Milliseconds(30);
    return reply;
  });
  std::string input;
  for (int i = 0; i < 10; ++i) absl::StrAppend(&input, R"({"prompt": ")", i, "\"}\n\n");
  const Outcome outcome =
      RunCommand({"generate", "--address", server.address(), "--concurrency=4"}, input);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<json> lines = Lines(outcome.out);
  ASSERT_EQ(lines.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(lines[i]["id"], 2 * i + 1);  // line numbers
    EXPECT_EQ(lines[i]["text"], absl::StrCat(i));
    EXPECT_EQ(lines[i]["attempts"], 1);
    EXPECT_EQ(lines[i]["usage"]["output_tokens"], 1);
  }
  EXPECT_LE(server.most_in_flight(), 4);
}

TEST(ClientGenerate, UnorderedWritesAsAnswersCome) {
  const std::string output = WriteFile("out.jsonl", "");
  FakeServer server([&](const v1::GenerateRequest& request, int) {
    // The answer to the first line waits until the second answer is in the file.
    while (Last(request) == "slow" && ReadAll(output).empty()) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    return Answer(Last(request));
  });
  const Outcome outcome =
      RunCommand({"generate", "--address", server.address(), "--unordered", "--output", output},
                 "{\"prompt\":\"slow\"}\n{\"prompt\":\"fast\"}\n");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<json> lines = Lines(ReadAll(output));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["text"], "fast");
  EXPECT_EQ(lines[1]["id"], 1);
}

TEST(ClientGenerate, NothingIsLost) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    Reply reply = Answer(Last(request));
    if (Last(request) == "bad") reply.status = {grpc::StatusCode::INTERNAL, "broke"};
    if (Last(request) == "busy" && call < 3) reply.status = RetryAfter(absl::Milliseconds(5));
    return reply;
  });
  const Outcome outcome = RunCommand({"generate", "--address", server.address()},
                                     "{\"id\": \"a\", \"prompt\": \"good\"}\n"
                                     "{\"id\": \"b\", \"prompt\": \"bad\"}\n"
                                     "{\"id\": \"c\", \"prompt\": \"busy\"}\n"
                                     "not json\n"
                                     "{\"id\": \"e\", \"prompt\": \"x\", \"max_token\": 3}\n"
                                     "{\"id\": \"f\", \"prompt\": \"x\", \"images\": [\"no\"]}");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("4 of 6 lines failed"));
  const std::vector<json> lines = Lines(outcome.out);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0]["text"], "good");
  EXPECT_EQ(lines[1]["error"]["code"], "INTERNAL");
  EXPECT_EQ(lines[1]["text"], "bad");  // the text before the error
  EXPECT_EQ(lines[2]["text"], "busy");
  EXPECT_GT(lines[2]["attempts"], 0);
  EXPECT_EQ(lines[3]["id"], 4);
  EXPECT_EQ(lines[3]["error"]["message"], "not valid JSON at byte 2");
  EXPECT_EQ(lines[4]["id"], "e");
  EXPECT_EQ(lines[4]["error"]["message"], "unknown key \"max_token\"");
  EXPECT_EQ(lines[5]["error"]["code"], "NOT_FOUND");
}

TEST(ClientGenerate, FilesAndRelativeImages) {
  FakeServer server([](const v1::GenerateRequest& r, int) { return Answer(Last(r)); });
  WriteFile("pictures/a.png", "xxx");
  const std::string input =
      WriteFile("in.jsonl", "{\"prompt\": \"{image}?\", \"images\": [\"pictures/a.png\"]}\n");
  const std::string output = WriteFile("out.jsonl", "old");
  const Outcome outcome = RunCommand({"generate", "--address", server.address(), "--input", input,
                                      "--output", output, "--temperature=0.5"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(Lines(ReadAll(output))[0]["text"], "[3]?");
  EXPECT_EQ(server.requests()[0].sampling().temperature(), 0.5f);
  EXPECT_EQ(RunCommand({"generate", "--input", input, "--output", input}).code, 2);
  EXPECT_EQ(RunCommand({"generate", "--input", "/no/such"}).code, 1);
  EXPECT_EQ(RunCommand({"generate", "--output", "/no/such/dir/x"}).code, 1);
}

TEST(ClientGenerate, InterruptStillWritesEveryLineThatWasRead) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    Reply reply = Answer(Last(request));
    reply.hang = Last(request) == "hang";
    return reply;
  });
  Interrupt interrupt;
  std::thread presser([&] {
    // With two in flight, the third is sent after the first answer.
    while (server.requests().size() < 3) absl::SleepFor(absl::Milliseconds(1));
    interrupt.Trigger();
  });
  const Outcome outcome = RunCommand(
      {"generate", "--address", server.address(), "--concurrency=2"},
      "{\"prompt\":\"x\"}\n{\"prompt\":\"hang\"}\n{\"prompt\":\"hang\"}\n{\"prompt\":\"never\"}\n",
      &interrupt);
  presser.join();
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("interrupted"));
  const std::vector<json> lines = Lines(outcome.out);
  // The fourth line may or may not have been read by then.
  ASSERT_GE(lines.size(), 3u);
  EXPECT_EQ(lines[0]["text"], "x");
  for (size_t i = 1; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["id"], i + 1);
    EXPECT_EQ(lines[i]["error"]["code"], "CANCELLED") << lines[i];
  }
}

struct LineCase {
  const char* line;
  const char* error;
};

TEST(ClientGenerateLine, BadLines) {
  const LineCase cases[] = {
      {R"({})", "a line needs either \"prompt\" or \"messages\""},
      {R"({"prompt": "a", "messages": []})", "a line needs either \"prompt\" or \"messages\""},
      {R"({"messages": []})", "\"messages\" must be a list of at least one message"},
      {R"({"messages": [{"role": "cat", "content": "x"}]})",
       "messages[0]: role \"cat\" is none of system, user and assistant"},
      {R"({"messages": [{"role": "user"}]})",
       "messages[0]: \"content\" must be a string or a list of parts"},
      {R"({"messages": [{"role": "user", "content": [{"type": "video"}]}]})",
       "messages[0]: type \"video\" is neither text nor image"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})",
       "messages[0]: a text part needs \"text\""},
      {R"({"messages": [{"role": "user", "content": "x", "name": "y"}]})",
       "messages[0]: unknown key \"name\""},
      {R"({"messages": [{"role": "user", "content": "x"}], "images": []})",
       "unknown key \"images\""},
      {R"({"id": [], "prompt": "x"})", "\"id\" must be a string or a number"},
      {R"({"prompt": "x", "raw": true, "system": "y"})",
       "\"raw\" and \"system\" exclude each other"},
      {R"({"prompt": "<image>", "raw": true})",
       "the text has 1 <image> markers, but there are 0 images"},
      {R"({"prompt": 5})", "prompt: not a string"}};
  for (const LineCase& c : cases) {
    LineRequest out;
    const absl::Status status = ParseLine(c.line, 3, {}, &out);
    EXPECT_EQ(status.message(), c.error) << c.line;
    EXPECT_EQ(out.id, 3);
  }
}

TEST(ClientGenerateLine, MessagesAndOverrides) {
  const std::string image = WriteFile("a.png", "xx");
  LineDefaults defaults;
  defaults.generation.max_tokens = 5;
  defaults.generation.top_k = 9;
  defaults.system = "only for prompts";
  defaults.image_directory = DirectoryOf(image);
  LineRequest out;
  ASSERT_TRUE(ParseLine(R"({"id": 1.5, "max_tokens": 7, "messages": [
      {"role": "system", "content": "s"},
      {"role": "user", "content": [{"type": "text", "text": "see "},
                                   {"type": "image", "path": "a.png"}]},
      {"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]})",
                        1, defaults, &out)
                  .ok());
  EXPECT_EQ(out.id, 1.5);
  ASSERT_EQ(out.request.messages_size(), 4);
  EXPECT_EQ(Flatten(out.request.messages(1).content()), "see [2]");
  EXPECT_EQ(out.request.messages(2).role(), v1::Message::ROLE_ASSISTANT);
  EXPECT_EQ(out.request.stopping().max_tokens(), 7);
  EXPECT_EQ(out.request.sampling().top_k(), 9);
}

}  // namespace
}  // namespace tessera::client
