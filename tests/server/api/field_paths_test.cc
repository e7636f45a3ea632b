#include "server/api/field_paths.h"

#include "gtest/gtest.h"
#include "server/api/error_details.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using Field = RequestField;
using Form = PromptPaths::Form;

TEST(FieldPathsTest, EveryFieldHasTheClientsPath) {
  const PromptPaths prompt{Form::kMessages, {"messages[0].content[1].image"}};
  const std::pair<FieldViolation, const char*> kCases[] = {
      {{Field::kId}, "request_id"},
      {{Field::kPrompt}, "messages"},
      {{Field::kPromptToken, 3}, "tokenized.ids[3]"},
      {{Field::kImage, 0}, "messages[0].content[1].image"},
      {{Field::kMessage, 2}, "messages[2].content"},
      {{Field::kMessageRole, 1}, "messages[1].role"},
      {{Field::kMessageImage, 1, 4}, "messages[1].content[4].image"},
      {{Field::kTemperature}, "sampling.temperature"},
      {{Field::kTopK}, "sampling.top_k"},
      {{Field::kTopP}, "sampling.top_p"},
      {{Field::kMinP}, "sampling.min_p"},
      {{Field::kRepetitionPenalty}, "sampling.repetition_penalty"},
      {{Field::kPresencePenalty}, "sampling.presence_penalty"},
      {{Field::kFrequencyPenalty}, "sampling.frequency_penalty"},
      {{Field::kLogitBias}, "sampling.logit_bias"},
      {{Field::kMaxTokens}, "stopping.max_tokens"},
      {{Field::kMinTokens}, "stopping.min_tokens"},
      {{Field::kStopStrings}, "stopping.stop"},
      {{Field::kStopStrings, 2}, "stopping.stop[2]"},
      {{Field::kStopTokenIds, 0}, "stopping.stop_token_ids[0]"},
      {{Field::kTopLogprobs}, "response.top_logprobs"},
      {{Field::kPolicy}, "kv_policy.text"},
  };
  for (const auto& [violation, path] : kCases) {
    const absl::Status status = RequestFieldError(violation, "why");
    ASSERT_EQ(GetFieldViolation(status)->field, violation.field) << path;
    EXPECT_EQ(View(ToGrpcStatus(WithProtoPath(status, prompt))).field, path);
  }
}

// The engine sees `content` as a message, which the client never wrote.
TEST(FieldPathsTest, PromptErrorsUseTheClientsPath) {
  const auto path = [](Form form, const FieldViolation& violation) {
    return ProtoPath(violation, {form, {}});
  };
  EXPECT_EQ(path(Form::kContent, {Field::kMessage, 0}), "content");
  EXPECT_EQ(path(Form::kContent, {Field::kMessageRole, 0}), "content");
  EXPECT_EQ(path(Form::kContent, {Field::kPrompt}), "content");
  EXPECT_EQ(path(Form::kTokenized, {Field::kPrompt}), "tokenized.ids");
}

TEST(FieldPathsTest, LimitsHaveAReasonOfTheirOwn) {
  const FieldViolation over{.field = Field::kMaxTokens, .over_limit = true};
  EXPECT_EQ(ReasonOf(WithProtoPath(RequestFieldError(over, "why"), {})), "LIMIT_EXCEEDED");
  EXPECT_EQ(ReasonOf(WithProtoPath(RequestFieldError({Field::kMaxTokens}, "why"), {})),
            "INVALID_FIELD");
  const auto policy =
      RequestFieldError({Field::kPolicy}, "why", absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(WithProtoPath(policy, {})), "KV_POLICY_NOT_ALLOWED");
}

TEST(FieldPathsTest, OtherErrorsAreUnchanged) {
  EXPECT_TRUE(WithProtoPath(absl::OkStatus(), {}).ok());
  const absl::Status other = absl::InternalError("x");
  EXPECT_EQ(WithProtoPath(other, {}), other);
  EXPECT_FALSE(GetFieldViolation(other).has_value());
}

}  // namespace
}  // namespace tessera
