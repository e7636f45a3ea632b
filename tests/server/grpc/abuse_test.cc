// Attacks on gRPC and HTTP. SECURITY.md names these tests.
#include <future>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kChat[] = "/v1/chat/completions";

class AbuseTest : public testing::Test {
 protected:
  static void Configure(ServerConfig* config) {
    config->http_listen = "127.0.0.1:0";
    config->handshake_timeout = absl::Seconds(2);
    config->max_concurrent_streams = 2;
  }
  // The answer to raw bytes, each on a connection of its own.
  HttpReply Raw(const std::string& bytes) {
    HttpClient client(server_.daemon().http_address());
    client.Send(bytes);
    return client.Read();
  }
  HttpReply Chat(const Json& content) {
    const Json body = {{"messages", {{{"role", "user"}, {"content", content}}}}};
    HttpClient client(server_.daemon().http_address());
    return client.Post(kChat, body.dump());
  }
  void ExpectAlive() {
    EXPECT_EQ(Raw("GET /health HTTP/1.1\r\n\r\n").status, 200);
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    // On a connection of its own: gRPC may have closed the one that was abused.
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = v1::Tokenizer::NewStub(grpc::CreateCustomChannel(
        server_.daemon().listen_address(), grpc::InsecureChannelCredentials(), own));
    const grpc::Status status = stub->Tokenize(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_code() << " " << status.error_message();
  }

  TestServer server_{Configure};
};

// Wherever a URL points and however it is written: nothing is fetched unless the operator has said
// from where, so nothing can be reached.
TEST_F(AbuseTest, NoUrlIsFetched) {
  for (const char* url :
       {"http://169.254.169.254/latest/meta-data/", "https://example.com/a.png",
        "HTTP://127.0.0.1:8601/", "http://[::1]/", "http://0x7f000001/", "http://2130706433/",
        "http://localhost.example.com@127.0.0.1/", "//127.0.0.1/a.png", "file:///etc/passwd",
        "FILE:/etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_", "unix:/run/x.sock",
        "/etc/passwd", "../../etc/passwd", " data:image/png;base64,AAAA", "blob:x",
        "javascript:0"}) {
    const HttpReply reply = Chat({{{"type", "image_url"}, {"image_url", {{"url", url}}}}});
    EXPECT_EQ(reply.status, 400) << url;
    EXPECT_THAT(reply.body, HasSubstr("does not fetch images")) << url;
  }
  EXPECT_EQ(Chat({{{"type", "image_url"}, {"image_url", {{"url", ""}}}}}).status, 400);
  // Nor does a data URI that names another source: its bytes must be an image.
  const std::string inner = absl::Base64Escape("https://example.com/a.png");
  for (const std::string& uri :
       {absl::StrCat("data:text/uri-list;base64,", inner),
        absl::StrCat("data:image/png;base64,", inner), std::string("data:,https://example.com"),
        std::string("data:image/svg+xml;base64,PHN2Zy8+")}) {
    EXPECT_EQ(Chat({{{"type", "image_url"}, {"image_url", {{"url", uri}}}}}).status, 400) << uri;
  }
  EXPECT_EQ(server_.engine().count(), 0u);
}

// Two readings of one request, by a proxy and by us, would let a second one through unseen.
TEST_F(AbuseTest, AmbiguousLengthsAreRefused) {
  const std::string post = absl::StrCat("POST /tokenize HTTP/1.1\r\nHost: t\r\n");
  const std::string body = R"({"prompt":"a"})";
  for (const std::string& headers :
       {std::string("Content-Length: 14\r\nTransfer-Encoding: chunked\r\n"),
        std::string("Transfer-Encoding: chunked\r\nContent-Length: 14\r\n"),
        std::string("Content-Length: 14\r\nContent-Length: 15\r\n"),
        std::string("Content-Length: -1\r\n"), std::string("Content-Length: 0x0e\r\n"),
        std::string("Content-Length: 14, 15\r\n"),
        std::string("Content-Length: 99999999999999999999\r\n"),
        std::string("Content-Length : 14\r\n")}) {
    const HttpReply reply = Raw(absl::StrCat(post, headers, "\r\n", body));
    EXPECT_EQ(reply.status, 400) << headers;
    EXPECT_EQ(reply.headers.at("connection"), "close") << headers;
  }
  // A coding that we do not know must not be taken for a body.
  for (const char* coding : {"gzip", "gzip, chunked", "identity", "xchunked", ""}) {
    const HttpReply reply =
        Raw(absl::StrCat(post, "Transfer-Encoding: ", coding, "\r\n\r\n", body));
    EXPECT_TRUE(reply.status == 501 || reply.status == 400) << coding << reply.status;
  }
  ExpectAlive();
}

TEST_F(AbuseTest, HeadersAreBounded) {
  std::string many = "GET /health HTTP/1.1\r\n";
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&many, "A", i, ": b\r\n");
  EXPECT_EQ(Raw(many + "\r\n").status, 431);
  EXPECT_EQ(Raw("GET /health HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n").status, 431);
  EXPECT_EQ(Raw("GET /" + std::string(20000, 'x') + " HTTP/1.1\r\n\r\n").status, 431);
  const std::string zero(1, '\0');
  EXPECT_EQ(Raw("GET /health HTTP/1.1\r\nX: a" + zero + "b\r\n\r\n").status, 400);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  context.AddMetadata("x-long", std::string(20000, 'x'));
  v1::TokenizeResponse response;
  EXPECT_EQ(server_.tokenizer().Tokenize(&context, {}, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  ExpectAlive();
}

// A header that comes back in ours could end it and begin another.
TEST_F(AbuseTest, RequestIdsCannotForgeHeaders) {
  for (const char* id : {"a b", "a\tb", "\xc3\xa9", ""}) {
    HttpClient client(server_.daemon().http_address());
    client.Send(absl::StrCat("GET /health HTTP/1.1\r\nX-Request-Id: ", id, "\r\n\r\n"));
    const HttpReply reply = client.Read();
    EXPECT_NE(reply.headers.at("x-request-id"), id);
  }
  HttpClient client(server_.daemon().http_address());
  client.Send("GET /health HTTP/1.1\r\nX-Request-Id: " + std::string(129, 'a') + "\r\n\r\n");
  EXPECT_EQ(client.Read().status, 400);
}

TEST_F(AbuseTest, NestingIsBounded) {
  for (const char* open : {"[", R"({"a":)"}) {
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += open;
    HttpClient client(server_.daemon().http_address());
    EXPECT_EQ(client.Post(kChat, deep).status, 400);
  }
  // Groups within groups, of a field that no message has.
  const std::string groups(1'000'000, '\x7b');
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const grpc::Slice slice(groups);
  const grpc::ByteBuffer in(&slice, 1);
  grpc::ByteBuffer out;
  grpc::CompletionQueue queue;
  const auto call = grpc::GenericStub(server_.channel())
                        .PrepareUnaryCall(&context, "/tessera.v1.Tokenizer/Tokenize", in, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&out, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  EXPECT_FALSE(status.ok());
  ExpectAlive();
}

TEST_F(AbuseTest, SilentGrpcConnectionsAreClosed) {
  HttpClient nothing(server_.daemon().listen_address());
  EXPECT_TRUE(nothing.ends_within(absl::Seconds(8)));
  HttpClient half(server_.daemon().listen_address());
  half.Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");  // and no settings
  EXPECT_TRUE(half.ends_within(absl::Seconds(8)));
}

TEST_F(AbuseTest, CallsOfAConnectionAreBounded) {
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 3; ++i) {
    answers.push_back(std::async(
        std::launch::async, [this] { return Generate(server_.inference(), TextRequest("a")); }));
  }
  server_.engine().Wait(1);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(server_.engine().count(), 2u);  // the third waits in its own client
  server_.engine().Wait(0).output_queue->Put(LastEvent(), SteadyNow());
  server_.engine().Wait(2);
  for (const size_t n : {1, 2})
    server_.engine().Wait(n).output_queue->Put(LastEvent(), SteadyNow());
  for (auto& answer : answers) EXPECT_TRUE(answer.get().status.ok());
}

}  // namespace
}  // namespace tessera
