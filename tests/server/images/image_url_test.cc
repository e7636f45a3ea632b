// Images named by URL, from the request to the engine, over gRPC and HTTP.
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/server/http_client.h"
#include "tests/server/https_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

class ImageUrlTest : public testing::Test {
 protected:
  v1::GenerateRequest Request(const std::string& url) const {
    v1::GenerateRequest request = TextRequest("What is this?");
    request.add_content()->mutable_image()->set_url(url);
    return request;
  }
  std::string Body(const std::string& url, const Json& more = Json::object()) const {
    Json body = {{"messages",
                  {{{"role", "user"},
                    {"content",
                     {{{"type", "text"}, {"text", "What is this?"}},
                      {{"type", "image_url"}, {"image_url", {{"url", url}}}}}}}}}};
    body.update(more);
    return body.dump();
  }
  HttpReply Chat(const std::string& url) {
    return HttpClient(server_.daemon().http_address()).Post("/v1/chat/completions", Body(url));
  }
  std::string Url(const std::string& path) const { return pictures_.Url("localhost", path); }
  double Count(const char* outcome) {
    return server_.daemon().metrics().Value(Metric::kImageFetches, {outcome});
  }
  // Lets the n-th request end once the engine has it.
  std::thread FinishSoon(size_t n) {
    return std::thread(
        [this, n] { server_.engine().Wait(n).output_queue->Put(LastEvent(), SteadyNow()); });
  }

  const std::string png_ = ReadTestFile("tests/eval/images/01_00_00.png");
  TestCertificates certificates_;
  HttpsServer pictures_{certificates_.Make("pictures"),
                        [this](const std::string& head, const HttpsServer::Write& write) {
                          if (absl::StrContains(head, "GET /a.png ")) {
                            write(HttpAnswer("200 OK", png_));
                          } else if (absl::StrContains(head, "GET /text ")) {
                            write(HttpAnswer("200 OK", "no picture"));
                          } else if (absl::StrContains(head, "GET /hang ")) {
                            write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                            while (write("1\r\nx\r\n")) absl::SleepFor(absl::Milliseconds(5));
                          } else {
                            write(HttpAnswer("404 Not Found", ""));
                          }
                        }};
  TestServer server_{[this](ServerConfig* c) {
    c->http_listen = "127.0.0.1:0";
    c->image_url_hosts = {absl::StrCat("localhost:", pictures_.port()), "a.example.com",
                          "169.254.169.254"};
    c->image_url_allow_private = true;
    c->image_url_ca_file = certificates_.ca();
    c->image_url_timeout = absl::Minutes(1);
  }};
};

TEST_F(ImageUrlTest, TheEngineSeesWhatItSeesOfTheBytes) {
  v1::GenerateRequest bytes = TextRequest("What is this?");
  bytes.add_content()->mutable_image()->set_data(png_);
  std::thread first = FinishSoon(0), second = FinishSoon(1), third = FinishSoon(2);
  EXPECT_TRUE(Generate(server_.inference(), bytes).status.ok());
  const Answer fetched = Generate(server_.inference(), Request(Url("/a.png")));
  EXPECT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  EXPECT_EQ(Chat(Url("/a.png")).status, 200);
  for (std::thread* t : {&first, &second, &third}) t->join();
  const Prompt want = server_.engine().Wait(0).request.prompt;
  ASSERT_EQ(want.images.size(), 1u);
  for (const size_t n : {1, 2}) {
    const Prompt got = server_.engine().Wait(n).request.prompt;
    EXPECT_EQ(got.ids, want.ids);
    ASSERT_EQ(got.images.size(), 1u);
    EXPECT_EQ(got.images[0].image->digest, want.images[0].image->digest);
  }
  EXPECT_EQ(Count("ok"), 2);
}

// The first look, before anything is fetched.
TEST_F(ImageUrlTest, UrlsThatAreNotAllowedAreRefusedByName) {
  for (const char* text : {"http://a.example.com/a.png",
                           "http://169.254.169.254/latest/meta-data/",
                           "https://example.com/a.png",
                           "https://localhost/a.png",
                           "https://127.0.0.1/",
                           "https://[::1]/",
                           "https://[::ffff:127.0.0.1]/",
                           "https://0x7f000001/",
                           "https://2130706433/",
                           "https://0177.0.0.1/",
                           "https://127.1/",
                           "https://0.0.0.0/",
                           "https://metadata.google.internal/computeMetadata/v1/",
                           "https://a.example.com@127.0.0.1/",
                           "https://127.0.0.1\\@a.example.com/",
                           "https://a.example.com:8443/",
                           "https://a.exam\tple.com/",
                           "https://b\xc3\xbc.example.com/",
                           "https://a.example.com%2f/",
                           "//a.example.com/a.png",
                           "file:///etc/passwd",
                           "FILE:/etc/passwd",
                           "unix:/run/x.sock",
                           "gopher://127.0.0.1:6379/_",
                           "ftp://a.example.com/",
                           "a.example.com/a.png",
                           "/etc/passwd",
                           "blob:x",
                           " data:image/png;base64,AAAA"}) {
    const HttpReply reply = Chat(text);
    EXPECT_EQ(reply.status, 400) << text;
    const Json error = Json::parse(reply.body)["error"];
    EXPECT_EQ(error["param"], "messages[0].content[1].image_url.url") << text;
    EXPECT_EQ(error["code"], "invalid_field") << text;
    const ErrorView view = View(Generate(server_.inference(), Request(text)).status);
    EXPECT_EQ(view.code, grpc::StatusCode::INVALID_ARGUMENT) << text;
    EXPECT_EQ(view.field, "content[1].image.url") << text;
  }
  EXPECT_TRUE(pictures_.heads().empty());
  EXPECT_EQ(server_.engine().count(), 0u);
}

TEST_F(ImageUrlTest, WhatIsNotFetchedIsNamed) {
  const HttpReply reply = Chat(Url("/missing.png"));
  EXPECT_EQ(reply.status, 400);
  const Json error = Json::parse(reply.body)["error"];
  EXPECT_EQ(error["param"], "messages[0].content[1].image_url.url");
  EXPECT_EQ(error["code"], "image_not_fetched");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("status 404"));
  ErrorView view = View(Generate(server_.inference(), Request(Url("/missing.png"))).status);
  EXPECT_EQ(view.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(view.field, "content[1].image.url");
  EXPECT_EQ(view.reason, "IMAGE_NOT_FETCHED");
  // A listed address that no request may reach.
  view = View(Generate(server_.inference(), Request("https://169.254.169.254/")).status);
  EXPECT_EQ(view.reason, "IMAGE_NOT_FETCHED");
  EXPECT_THAT(view.message, testing::Not(HasSubstr("169.254")));
}

TEST_F(ImageUrlTest, WhatIsFetchedMustBeAPicture) {
  EXPECT_EQ(Chat(Url("/text")).status, 400);
  const ErrorView view = View(Generate(server_.inference(), Request(Url("/text"))).status);
  EXPECT_EQ(view.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(view.field, "content[1].image");
  EXPECT_EQ(Count("ok"), 2);
  EXPECT_EQ(server_.engine().count(), 0u);
}

TEST_F(ImageUrlTest, ClientsThatLeaveEndTheirFetches) {
  {
    HttpClient client(server_.daemon().http_address());
    const std::string body = Body(Url("/hang"), {{"stream", true}});
    client.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                             body.size(), "\r\n\r\n", body));
    ASSERT_TRUE(Eventually([&] { return pictures_.heads().size() == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return Count("cancelled") == 1; }));
  grpc::ClientContext context;
  const auto reader = server_.inference().Generate(&context, Request(Url("/hang")));
  ASSERT_TRUE(Eventually([&] { return pictures_.heads().size() == 2; }));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Count("cancelled") == 2; }));
}

TEST_F(ImageUrlTest, DeadlinesEndFetches) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const Answer answer = Generate(server_.inference(), Request(Url("/hang")), &context);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return Count("cancelled") + Count("timeout") == 1; }));
}

TEST_F(ImageUrlTest, ASlowHostHoldsUpNobodyElse) {
  grpc::ClientContext context;
  const auto reader = server_.inference().Generate(&context, Request(Url("/hang")));
  ASSERT_TRUE(Eventually([&] { return pictures_.heads().size() == 1; }));
  std::thread finish = FinishSoon(0);
  EXPECT_TRUE(Generate(server_.inference(), TextRequest("Hello")).status.ok());
  finish.join();
  context.TryCancel();
  reader->Finish();
}

TEST_F(ImageUrlTest, StoppingTheServerEndsFetches) {
  grpc::ClientContext context;
  const auto reader = server_.inference().Generate(&context, Request(Url("/hang")));
  ASSERT_TRUE(Eventually([&] { return pictures_.heads().size() == 1; }));
  server_.daemon().Drain([](absl::Duration) { return true; });
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// The answer does not wait for the worker or the fetcher that still prepares the request.
TEST_F(ImageUrlTest, EndingAnHttpRequestEndsItsFetches) {
  HttpClient client(server_.daemon().http_address());
  const std::string body = Body(Url("/hang"));
  client.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nX-Request-Id: r1\r\n",
                           "Content-Length: ", body.size(), "\r\n\r\n", body));
  ASSERT_TRUE(Eventually([&] { return pictures_.heads().size() == 1; }));
  grpc::ClientContext context;
  v1::AbortRequest abort;
  abort.set_request_id("r1");
  v1::AbortResponse aborted;
  ASSERT_TRUE(server_.control().Abort(&context, abort, &aborted).ok());
  const HttpReply reply = client.Read();
  EXPECT_EQ(reply.status, 499);
  EXPECT_EQ(Json::parse(reply.body)["error"]["code"], "cancelled");
  EXPECT_TRUE(Eventually([&] { return Count("cancelled") == 1; }));
  EXPECT_EQ(client.Get("/health").status, 200);  // the connection lives on
  EXPECT_EQ(server_.engine().count(), 0u);
}

TEST_F(ImageUrlTest, OtherMethodsDoNotFetch) {
  v1::CountTokensRequest count;
  count.add_content()->mutable_image()->set_url(Url("/a.png"));
  v1::CountTokensResponse counted;
  grpc::ClientContext context;
  const ErrorView view = View(server_.tokenizer().CountTokens(&context, count, &counted));
  EXPECT_EQ(view.field, "content[0].image.url");
  EXPECT_THAT(view.message, HasSubstr("only Generate fetches images"));
  const HttpReply reply =
      HttpClient(server_.daemon().http_address()).Post("/tokenize", Body(Url("/a.png")));
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, HasSubstr("send the image itself"));
  EXPECT_TRUE(pictures_.heads().empty());
}

}  // namespace
}  // namespace tessera
