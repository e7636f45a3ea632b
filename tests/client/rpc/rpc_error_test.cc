#include "client/rpc/rpc_error.h"

#include "client/rpc/connection.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace tessera::client {
namespace {

TEST(ClientRpcError, DecodesEveryDetail) {
  google::rpc::BadRequest bad;
  auto& violation = *bad.add_field_violations();
  violation.set_field("content[2].image");
  violation.set_description("not a picture");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500000000);
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  info.set_domain("tessera");
  (*info.mutable_metadata())["b"] = "2";
  (*info.mutable_metadata())["a"] = "1";
  google::rpc::QuotaFailure quota;
  quota.add_violations()->set_subject("queue");
  quota.mutable_violations(0)->set_description("64 waiting");
  google::protobuf::Duration unknown;
  const RpcError error = DecodeError(DetailedStatus(grpc::StatusCode::RESOURCE_EXHAUSTED, "full",
                                                    {&bad, &retry, &info, &quota, &unknown}));
  EXPECT_EQ(error.reason, "QUEUE_FULL");
  EXPECT_EQ(error.retry_delay, absl::Milliseconds(1500));
  EXPECT_EQ(FormatError(error),
            "RESOURCE_EXHAUSTED: full\n"
            "  content[2].image: not a picture\n"
            "  retry after 1.5s\n"
            "  reason QUEUE_FULL (tessera) a=1 b=2\n"
            "  quota of queue: 64 waiting\n"
            "  detail of type type.googleapis.com/google.protobuf.Duration\n");
  EXPECT_EQ(ToJson(error).dump(),
            R"({"code":"RESOURCE_EXHAUSTED","message":"full","reason":"QUEUE_FULL",)"
            R"("fields":[{"field":"content[2].image","description":"not a picture"}],)"
            R"("retry_after_seconds":1.5,"details":["reason QUEUE_FULL (tessera) a=1 b=2",)"
            R"("quota of queue: 64 waiting",)"
            R"("detail of type type.googleapis.com/google.protobuf.Duration"]})");
}

TEST(ClientRpcError, AViolationThatIsTheMessageIsSaidOnce) {
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("a.b");
  bad.mutable_field_violations(0)->set_description("wrong");
  const auto status = DetailedStatus(grpc::StatusCode::INVALID_ARGUMENT, "a.b: wrong", {&bad});
  EXPECT_EQ(FormatError(DecodeError(status)), "INVALID_ARGUMENT: a.b: wrong\n");
}

TEST(ClientRpcError, PlainAndBrokenDetails) {
  EXPECT_EQ(FormatError(DecodeError({grpc::StatusCode::NOT_FOUND, "gone"})), "NOT_FOUND: gone\n");
  EXPECT_EQ(FormatError(DecodeError({grpc::StatusCode::INTERNAL, "x", "\x01\x02garbage"})),
            "INTERNAL: x\n  the server sent error details that cannot be parsed\n");
  EXPECT_EQ(FormatError(DecodeError({grpc::StatusCode::NOT_FOUND, "a\033[2Jb"})),
            "NOT_FOUND: a[2Jb\n");
  EXPECT_TRUE(DecodeError(grpc::Status::OK).ok());
}

TEST(ClientConnection, Addresses) {
  for (const char* good : {"localhost:1", "127.0.0.1:65535", "[::1]:80", "unix:/run/x.sock"}) {
    EXPECT_TRUE(Connect(Endpoint(good)).ok()) << good;
  }
  for (const char* bad : {"", "localhost", ":80", "localhost:", "localhost:0", "localhost:65536",
                          "localhost:+80", "::1:80", "[]:80", "http://a:80", "unix:", "a b:1"}) {
    EXPECT_EQ(Connect(Endpoint(bad)).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace tessera::client
