#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/interrupt.h"
#include "client/commands/chat_session.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;
using testing::Not;

// Answers "N: <last user turn>", where N is the number of messages.
Reply Echo(const v1::GenerateRequest& request, int) {
  const int n = request.messages_size();
  return Answer(absl::StrCat(
      " ", n, ": ", Flatten(n > 0 ? request.messages(n - 1).content() : request.content())));
}

TEST(ClientChat, OneShotWithImagesInOrder) {
  FakeServer server(Echo);
  const std::string a = WriteFile("a.png", "x"), b = WriteFile("b.png", "xx");
  const Outcome outcome =
      RunCommand({"chat", "--address", server.address(), "--image", a, "--image", b, "--message",
                  "{image} vs {image}?", "--max_tokens=5", "--expect", "1: [1] vs [2]?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "1: [1] vs [2]?\n");
  EXPECT_THAT(outcome.err,
              HasSubstr("10 tokens in, 15 out | KV 0 B at 0.00 bits () | first token"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\033")));
  EXPECT_EQ(server.requests()[0].stopping().max_tokens(), 5);
}

TEST(ClientChat, TurnsKeepHistoryAndSystem) {
  FakeServer server(Echo);
  const std::string a = WriteFile("a.png", "x"), b = WriteFile("b.png", "xx");
  const Outcome outcome =
      RunCommand({"chat", "--address", server.address(), "--system", "be brief", "--image", a,
                  "--message", "one", "--message", "two", "--image", b});
  EXPECT_EQ(outcome.out, "2: [1]one\n4: [2]two\n");
  const v1::GenerateRequest last = server.requests()[1];
  ASSERT_EQ(last.messages_size(), 4);
  EXPECT_EQ(last.messages(0).role(), v1::Message::ROLE_SYSTEM);
  EXPECT_EQ(Flatten(last.messages(0).content()), "be brief");
  EXPECT_EQ(last.messages(1).role(), v1::Message::ROLE_USER);
  EXPECT_EQ(Flatten(last.messages(1).content()), "[1]one");
  EXPECT_EQ(last.messages(2).role(), v1::Message::ROLE_ASSISTANT);
  EXPECT_EQ(Flatten(last.messages(2).content()), "2: [1]one");
}

TEST(ClientChat, RawSplitsAtTheModelsMarker) {
  FakeServer server(Echo);
  const std::string a = WriteFile("a.png", "x");
  const Outcome outcome = RunCommand({"chat", "--address", server.address(), "--raw", "--image", a,
                                      "--message", "USER: <image>\nwhat? ASSISTANT:"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const v1::GenerateRequest request = server.requests()[0];
  EXPECT_EQ(Flatten(request.content()), "USER: [1]\nwhat? ASSISTANT:");
  EXPECT_TRUE(request.has_apply_template());
  EXPECT_FALSE(request.apply_template());
  EXPECT_EQ(request.messages_size(), 0);
}

TEST(ClientChat, UnexpectedAnswerFails) {
  FakeServer server(Echo);
  const Outcome outcome =
      RunCommand({"chat", "--address", server.address(), "--message", "x", "--expect", "y"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("got \"1: x\", expected \"y\""));
}

TEST(ClientChat, JsonLine) {
  FakeServer server(Echo);
  const Outcome outcome =
      RunCommand({"chat", "--address", server.address(), "--message", "x", "--json"});
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << outcome.out;
  EXPECT_EQ(json["answer"], " 1: x");
  EXPECT_EQ(json["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 10);
}

TEST(ClientChat, ErrorsShowTheirDetails) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field("messages[0].content[0].image");
    bad.mutable_field_violations(0)->set_description("not a picture");
    Reply reply;
    reply.accepted = false;
    reply.status = DetailedStatus(grpc::StatusCode::INVALID_ARGUMENT, "bad image", {&bad});
    return reply;
  });
  const Outcome outcome = RunCommand({"chat", "--address", server.address(), "--message", "x"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err,
            "error: INVALID_ARGUMENT: bad image\n  messages[0].content[0].image: not a picture\n");
}

TEST(ClientChat, ConversationFromAPipe) {
  FakeServer server(Echo);
  const std::string a = WriteFile("a.png", "x");
  const Outcome outcome =
      RunCommand({"chat", "--address", server.address()},
                 "one\n\n/image " + a + "\ntwo\n/clear\nthree\n/quit\nnever asked\n");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "1: one\n3: [1]two\n1: three\n");
}

TEST(ClientChat, ConversationGoesOnAfterErrors) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    Reply reply = Echo(request, call);
    if (call == 0) reply.status = {grpc::StatusCode::INTERNAL, "oops"};
    return reply;
  });
  const Outcome outcome = RunCommand({"chat", "--address", server.address()},
                                     "one\n/image /no/such/file\n/wave\ntwo\n");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("1: two\n"));  // the failed turn is not in the history
  EXPECT_THAT(outcome.err, HasSubstr("INTERNAL: oops"));
  EXPECT_THAT(outcome.err, HasSubstr("/no/such/file: No such file"));
  EXPECT_THAT(outcome.err, HasSubstr("commands are /image"));
}

TEST(ClientChat, InterruptCancelsTheRunningAnswerAlone) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    Reply reply = Echo(request, call);
    reply.hang = call == 0;
    return reply;
  });
  Interrupt interrupt;
  ChatSession session(server.channel(), {}, &interrupt, nullptr);
  std::atomic<bool> answered = false;
  std::thread presser([&] {
    while (server.requests().empty()) absl::SleepFor(absl::Milliseconds(1));
    while (!answered) {
      interrupt.Trigger();
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  const auto stopped = session.Ask("one", {});
  answered = true;
  presser.join();
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(FormatError(stopped->error), "CANCELLED: stopped by the interrupt key\n");
  EXPECT_FALSE(interrupt.Trigger());  // no call runs, so no handler is installed
  const auto next = session.Ask("two", {});
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next->text, " 1: two");  // the stopped turn is not in the history
}

TEST(ClientChat, EscapesOfAnAnswerDoNotReachATerminal) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply;
    reply.deltas = {"a\033]0;title\007b"};
    return reply;
  });
  const Args args = {"chat", "--address", server.address(), "--message", "x"};
  EXPECT_EQ(RunCommand(args, "", nullptr, true).out, "a]0;titleb\n");
  EXPECT_EQ(RunCommand(args).out, "a\033]0;title\007b\n");  // a file gets the answer unchanged
}

TEST(ClientChat, UsageErrors) {
  EXPECT_EQ(RunCommand({"chat", "--raw"}).code, 2);
  EXPECT_EQ(RunCommand({"chat", "--raw", "--message=a", "--message=b"}).code, 2);
  EXPECT_EQ(RunCommand({"chat", "--raw", "--message=a", "--system=b"}).code, 2);
  EXPECT_EQ(RunCommand({"chat", "--expect=a"}).code, 2);
  EXPECT_EQ(RunCommand({"chat", "--message=a", "--image=/no/such"}).code, 1);
}

}  // namespace
}  // namespace tessera::client
