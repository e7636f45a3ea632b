#include "server/api/error_details.h"

#include "gmock/gmock.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/api/field_paths.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ErrorDetailsTest, FieldErrorOfAnyLayerBecomesBadRequest) {
  const PromptPaths prompt{.images = {"content[0].image", "content[2].image"}};
  for (const absl::Status& status :
       {FieldError("content[2].image", "not an image"),
        WithProtoPath(RequestFieldError({RequestField::kImage, 1}, "not an image"), prompt)}) {
    const ErrorView error = View(ToGrpcStatus(status, "r7"));
    EXPECT_EQ(error.code, grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(error.message, "content[2].image: not an image");
    EXPECT_EQ(error.field, "content[2].image");
    EXPECT_EQ(error.description, "not an image");
    EXPECT_EQ(error.reason, "INVALID_FIELD");
    EXPECT_EQ(error.domain, "tessera");
    EXPECT_EQ(error.request_id, "r7");
    EXPECT_FALSE(error.retry.has_value());
  }
}

// A field is named by type or not at all: no text is taken for one.
TEST(ErrorDetailsTest, TextIsNeverReadAsAField) {
  const auto status = absl::InvalidArgumentError("content[2].image: not an image");
  const ErrorView error = View(ToGrpcStatus(status));
  EXPECT_EQ(error.field, "");
  EXPECT_EQ(error.reason, "INVALID_FIELD");
  EXPECT_FALSE(FieldOfError(status).has_value());
}

TEST(ErrorDetailsTest, FullQueueAsksForRetry) {
  const ErrorView error =
      View(ToGrpcStatus(FromEngine(absl::ResourceExhaustedError("the queue is full"))));
  EXPECT_EQ(error.reason, "QUEUE_FULL");
  EXPECT_EQ(error.retry, absl::Seconds(1));
  EXPECT_EQ(error.quota, "server");
}

TEST(ErrorDetailsTest, OversizeImageDoesNot) {
  const PromptPaths prompt{.images = {"content[0].image"}};
  const ErrorView error = View(
      ToGrpcStatus(WithProtoPath(RequestFieldError({RequestField::kImage, 0}, "9 bytes, limit 8",
                                                   absl::StatusCode::kResourceExhausted),
                                 prompt)));
  EXPECT_EQ(error.reason, "LIMIT_EXCEEDED");
  EXPECT_EQ(error.quota, "content[0].image");
  EXPECT_EQ(error.field, "content[0].image");
  EXPECT_FALSE(error.retry.has_value());
}

TEST(ErrorDetailsTest, RetryDelayKeepsItsFraction) {
  const auto status =
      RetryLater(absl::StatusCode::kUnavailable, "x", reason::kDraining, absl::Milliseconds(2500));
  EXPECT_EQ(View(ToGrpcStatus(status)).retry, absl::Milliseconds(2500));
}

TEST(ErrorDetailsTest, InternalTextStaysInside) {
  for (const absl::Status& status : {absl::InternalError("pointer 0x7f00 in /srv/secret"),
                                     absl::UnknownError("pointer 0x7f00 in /srv/secret")}) {
    const ErrorView error = View(ToGrpcStatus(status, "r9"));
    EXPECT_EQ(error.code, grpc::StatusCode::INTERNAL);
    EXPECT_THAT(error.message, Not(HasSubstr("0x7f00")));
    EXPECT_THAT(error.message, HasSubstr("r9"));
    EXPECT_EQ(error.reason, "INTERNAL");
  }
}

TEST(ErrorDetailsTest, MessagesFitMetadataAndStayUtf8) {
  std::string huge;
  for (int i = 0; i < 5000; ++i) huge += "\xe2\x82\xac\xff";
  const grpc::Status wire = ToGrpcStatus(FieldError("content", huge));
  EXPECT_LT(wire.error_message().size(), 1100u);
  EXPECT_LT(wire.error_details().size(), 4000u);
  google::rpc::Status parsed;
  EXPECT_TRUE(parsed.ParseFromString(wire.error_details()));  // proto3 refuses broken UTF-8
}

TEST(ErrorDetailsTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(ErrorDetailsTest, EveryErrorCodeHasAReason) {
  for (int code = 1; code <= 16; ++code) {
    const ErrorView error = View(ToGrpcStatus(absl::Status(absl::StatusCode(code), "x")));
    EXPECT_NE(error.reason, "") << code;
    EXPECT_EQ(error.domain, "tessera") << code;
  }
}

}  // namespace
}  // namespace tessera
