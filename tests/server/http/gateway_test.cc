// The HTTP gateway over a scripted engine.
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kChat[] = "/v1/chat/completions";

std::string Body(const std::string& more = "") {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"hello"}])", more, "}");
}

void Enable(ServerConfig* config) { config->http_listen = "127.0.0.1:0"; }

struct GatewayTest : ::testing::Test {
  TestServer server{Enable};
  HttpClient client{server.daemon().http_address()};

  void Put(size_t n, Event event) {
    server.engine().Wait(n).output_queue->Put(std::move(event), SteadyNow());
  }
  void PutLast(size_t n, int prompt_tokens = 4, int output_tokens = 2) {
    Event last = LastEvent();
    last.usage.prompt_tokens = prompt_tokens;
    last.usage.output_tokens = output_tokens;
    last.usage.cached_tokens = 1;
    last.usage.policy = "none";
    Put(n, std::move(last));
  }
  void Post(const std::string& path, const std::string& body) {
    client.Send(absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: t\r\nContent-Length: ", body.size(),
                             "\r\n\r\n", body));
  }
};

TEST_F(GatewayTest, AWholeAnswer) {
  Post(kChat, Body(R"j(,"max_tokens":5,"kv_policy":"rtn(bits=8)")j"));
  Put(0, TextEvent("Hel", {5}));
  Put(0, TextEvent("lo", {6}));
  PutLast(0);
  const HttpReply reply = client.Read();
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  const Json json = Json::parse(reply.body);
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "demo");
  EXPECT_EQ(json["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(json["choices"][0]["message"]["content"], "Hello");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["total_tokens"], 6);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
  EXPECT_EQ(json["kv_cache"]["policy"], "none");
  const Request request = server.engine().Wait(0).request;
  EXPECT_EQ(request.stop.max_tokens, 5);
  EXPECT_EQ(request.policy->Text(), "rtn(bits=8)");
  EXPECT_EQ(json["id"], "chatcmpl-" + request.id);
  EXPECT_EQ(reply.headers.at("x-request-id"), request.id);
}

TEST_F(GatewayTest, AStreamComesAsItIsMade) {
  Post(kChat, Body(R"(,"stream":true,"stream_options":{"include_usage":true})"));
  Put(0, TextEvent("Hel", {5}));
  const HttpReply head = client.ReadHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-type"), "text/event-stream");
  Json piece = Json::parse(client.ReadEvent());  // before the rest is there
  EXPECT_EQ(piece["object"], "chat.completion.chunk");
  EXPECT_EQ(piece["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(piece["choices"][0]["delta"]["content"], "Hel");
  EXPECT_TRUE(piece["choices"][0]["finish_reason"].is_null());
  Put(0, TextEvent("lo", {6}));
  piece = Json::parse(client.ReadEvent());
  EXPECT_EQ(piece["choices"][0]["delta"], Json({{"content", "lo"}}));
  PutLast(0);
  piece = Json::parse(client.ReadEvent());
  EXPECT_EQ(piece["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(piece["choices"][0]["delta"], Json::object());
  piece = Json::parse(client.ReadEvent());
  EXPECT_TRUE(piece["choices"].empty());
  EXPECT_EQ(piece["usage"]["completion_tokens"], 2);
  EXPECT_EQ(client.ReadEvent(), "[DONE]");
  EXPECT_EQ(client.ReadEvent(), "");
  EXPECT_EQ(client.Get("/health").status, 200);  // the connection lives on
}

// As guidellm wants it.
TEST_F(GatewayTest, PiecesCountTokensIfAsked) {
  Post(kChat, Body(R"(,"stream":true,"stream_options":{"include_usage":true,)"
                   R"("continuous_usage_stats":true})"));
  const size_t prompt = server.engine().Wait(0).request.prompt.ids.size();
  EXPECT_GT(prompt, 0u);
  Put(0, TextEvent("Hel", {5, 6}));
  client.ReadHead();
  EXPECT_EQ(
      Json::parse(client.ReadEvent())["usage"],
      Json({{"prompt_tokens", prompt}, {"completion_tokens", 2}, {"total_tokens", prompt + 2}}));
  Put(0, TextEvent("lo", {7}));
  EXPECT_EQ(Json::parse(client.ReadEvent())["usage"]["completion_tokens"], 3);
  PutLast(0, static_cast<int>(prompt), 4);
  EXPECT_EQ(Json::parse(client.ReadEvent())["usage"]["completion_tokens"], 4);
  const Json last = Json::parse(client.ReadEvent());
  EXPECT_TRUE(last["choices"].empty());
  EXPECT_EQ(last["usage"]["completion_tokens"], 4);
  EXPECT_EQ(client.ReadEvent(), "[DONE]");
}

TEST_F(GatewayTest, FurtherAnswersWaitForTheFirstAndShareItsPrompt) {
  Post(kChat, Body(R"(,"n":3,"seed":10,"temperature":1)"));
  server.engine().Wait(0);
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(server.engine().count(), 1u);
  Put(0, TextEvent("a", {5}));
  EXPECT_EQ(server.engine().Wait(2).request.sampling.seed, 12u);
  EXPECT_EQ(server.engine().Wait(1).request.id, server.engine().Wait(0).request.id + "-1");
  Put(2, TextEvent("c", {7}));
  Put(1, TextEvent("b", {6}));
  for (const size_t n : {0, 1, 2}) PutLast(n);
  const Json json = Json::parse(client.Read().body);
  ASSERT_EQ(json["choices"].size(), 3u);
  EXPECT_EQ(json["choices"][1]["message"]["content"], "b");
  EXPECT_EQ(json["choices"][2]["message"]["content"], "c");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 4);  // once
  EXPECT_EQ(json["usage"]["completion_tokens"], 6);
}

TEST_F(GatewayTest, ErrorsBeforeTheAnswerHaveAStatus) {
  HttpReply reply = client.Post(kChat, Body(R"(,"temperature":-1)"));
  EXPECT_EQ(reply.status, 400);
  Json error = Json::parse(reply.body)["error"];
  EXPECT_EQ(error["param"], "temperature");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error["code"], "invalid_field");

  reply = client.Post(kChat, Body(R"(,"model":"gpt")"));
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(Json::parse(reply.body)["error"]["code"], "model_not_found");

  server.engine().submit_status = absl::ResourceExhaustedError("the queue is full");
  reply = client.Post(kChat, Body());
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.headers.at("retry-after"), "1");
  EXPECT_EQ(Json::parse(reply.body)["error"]["code"], "queue_full");

  server.engine().submit_status = absl::InternalError("secret address 0x7f");
  reply = client.Post(kChat, Body());
  EXPECT_EQ(reply.status, 500);
  EXPECT_THAT(reply.body, ::testing::Not(HasSubstr("0x7f")));
}

TEST_F(GatewayTest, AnEngineErrorEndsAStream) {
  Post(kChat, Body(R"(,"stream":true)"));
  Put(0, TextEvent("a", {5}));
  client.ReadHead();
  client.ReadEvent();
  Put(0, LastEvent(absl::DeadlineExceededError("the request's deadline has passed")));
  const Json piece = Json::parse(client.ReadEvent());
  EXPECT_EQ(piece["error"]["code"], "deadline_exceeded");
  EXPECT_EQ(client.ReadEvent(), "");  // and no [DONE]
}

TEST_F(GatewayTest, AClientThatGoesAwayCancels) {
  for (const bool stream : {false, true}) {
    const size_t n = server.engine().count();
    {
      HttpClient other(server.daemon().http_address());
      const std::string body = Body(stream ? R"(,"stream":true)" : "");
      other.Send(absl::StrCat("POST ", kChat, " HTTP/1.1\r\nContent-Length: ", body.size(),
                              "\r\n\r\n", body));
      server.engine().Wait(n);
      if (stream) {
        Put(n, TextEvent("a", {5}));
        other.ReadHead();
      }
    }
    EXPECT_TRUE(Eventually([&] { return server.engine().Wait(n).output_queue->cancelled(); }));
  }
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kHttpRequests, {kChat, "499"}) == 2;
  }));
}

TEST(GatewayLimitsTest, AClientThatStopsReadingIsGivenUp) {
  TestServer server([](ServerConfig* c) {
    Enable(c);
    c->stall_timeout = absl::Milliseconds(200);
  });
  HttpClient client(server.daemon().http_address());
  const std::string body = Body(R"(,"stream":true)");
  client.Send(
      absl::StrCat("POST ", kChat, " HTTP/1.1\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const auto submitted = server.engine().Wait();
  // More than the kernel takes: the write does not end.
  submitted.output_queue->Put(TextEvent(std::string(64 << 20, 'x'), {1}), SteadyNow());
  EXPECT_TRUE(Eventually([&] { return submitted.output_queue->cancelled(); }));
}

TEST_F(GatewayTest, LimitsOfTheTransport) {
  client.Send("nonsense\r\n\r\n");
  EXPECT_EQ(client.Read().status, 400);
  EXPECT_TRUE(client.AtEnd());
  HttpClient headers(server.daemon().http_address());
  headers.Send("GET /health HTTP/1.1\r\nX-Long: " + std::string(20000, 'x') + "\r\n\r\n");
  EXPECT_EQ(headers.Read().status, 431);
  HttpClient body(server.daemon().http_address());
  body.Send(absl::StrCat("POST ", kChat, " HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{"));
  EXPECT_EQ(body.Read().status, 413);
}

TEST_F(GatewayTest, ExpectContinueAndPipelinedRequests) {
  const std::string json = R"({"prompt":"a"})";
  client.Send(absl::StrCat("POST /tokenize HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: ",
                           json.size(), "\r\n\r\n"));
  EXPECT_EQ(client.ReadHead().status, 100);
  client.Send(json + "GET /version HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(Json::parse(client.Read().body)["count"], 2);
  EXPECT_TRUE(Json::parse(client.Read().body).contains("version"));
  EXPECT_EQ(Json::parse(client.Read().body)["status"], "serving");
}

TEST_F(GatewayTest, HttpOneZeroEndsWithTheConnection) {
  const std::string body = Body(R"(,"stream":true)");
  client.Send(
      absl::StrCat("POST ", kChat, " HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  Put(0, TextEvent("a", {5}));
  PutLast(0);
  const HttpReply reply = client.Read();
  EXPECT_FALSE(reply.headers.contains("transfer-encoding"));
  EXPECT_THAT(reply.body, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(GatewayTest, RoutesAndMethods) {
  EXPECT_EQ(client.Get("/v1/nothing").status, 404);
  const HttpReply wrong = client.Get(kChat);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(Json::parse(client.Get("/v1/models").body)["data"][0]["id"], "demo");
  EXPECT_EQ(Json::parse(client.Get("/v1/models/demo").body)["object"], "model");
  EXPECT_EQ(client.Get("/v1/models/other").status, 404);
  EXPECT_EQ(client.Get("/v1/modelsx").status, 404);
  EXPECT_THAT(client.Get("/metrics").body, HasSubstr("tessera_http_requests_total{"));
  EXPECT_EQ(client.Get("/health?verbose=1").status, 200);
}

TEST_F(GatewayTest, TokensThereAndBack) {
  const Json ids = Json::parse(
      client.Post("/tokenize", R"({"prompt":"a red cube","add_special_tokens":false})").body);
  const HttpReply text =
      client.Post("/detokenize", absl::StrCat(R"({"tokens":)", ids["tokens"].dump(), "}"));
  EXPECT_EQ(Json::parse(text.body)["prompt"], "a red cube");
  EXPECT_EQ(client.Post("/detokenize", R"({"tokens":[999999]})").status, 400);
  const std::string uri = absl::StrCat(
      "data:image/png;base64,", absl::Base64Escape(ReadTestFile("tests/eval/images/01_00_00.png")));
  const HttpReply chat = client.Post(
      "/tokenize", absl::StrCat(R"({"messages":[{"role":"user","content":[{"type":"image_url",)",
                                R"("image_url":{"url":")", uri, R"("}}]}]})"));
  EXPECT_EQ(chat.status, 200) << chat.body;
  EXPECT_GT(Json::parse(chat.body)["count"], 64);
}

TEST_F(GatewayTest, RequestIdsAndTracesAreKept) {
  const HttpReply bad = client.Post(kChat, Body(), {"X-Request-Id: a b"});
  EXPECT_EQ(bad.status, 400);
  const std::string body = Body();
  client.Send(absl::StrCat("POST ", kChat, " HTTP/1.1\r\nX-Request-Id: mine-1\r\n",
                           "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                           "\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  PutLast(0);
  EXPECT_EQ(client.Read().headers.at("x-request-id"), "mine-1");
  EXPECT_TRUE(Eventually([&] {
    return server.log().text().find("0af7651916cd43dd8448eb211c80319c") != std::string::npos;
  }));
  EXPECT_THAT(server.log().text(), ::testing::Not(HasSubstr("hello")));
}

TEST_F(GatewayTest, DrainingRefusesAndEndsWhatRuns) {
  Post(kChat, Body(R"(,"stream":true)"));
  Put(0, TextEvent("a", {5}));
  client.ReadHead();
  client.ReadEvent();
  HttpClient other(server.daemon().http_address());
  server.daemon().lifecycle().BeginDrain(SteadyNow());
  server.daemon().lifecycle().RefuseNow();
  EXPECT_EQ(other.Get("/health").status, 503);
  const HttpReply refused = other.Post(kChat, Body());
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "draining");
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  server.daemon().Drain([](absl::Duration) { return true; });
  EXPECT_EQ(Json::parse(client.ReadEvent())["error"]["code"], "draining");
}

TEST(GatewayLimitsTest, ConnectionsAreBounded) {
  TestServer server([](ServerConfig* config) {
    Enable(config);
    config->http_max_connections = 2;
  });
  HttpClient first(server.daemon().http_address()), second(server.daemon().http_address());
  EXPECT_EQ(first.Get("/health").status, 200);
  EXPECT_EQ(second.Get("/health").status, 200);
  HttpClient third(server.daemon().http_address());
  EXPECT_EQ(third.Read().status, 503);
}

}  // namespace
}  // namespace tessera
