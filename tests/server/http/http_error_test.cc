#include "server/http/http_error.h"

#include "gtest/gtest.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

TEST(HttpErrorTest, FieldsHaveTheirJsonName) {
  const std::pair<const char*, const char*> kCases[] = {
      {"sampling.top_p", "top_p"},
      {"sampling.logit_bias", "logit_bias"},
      {"stopping.max_tokens", "max_tokens"},
      {"stopping.stop[2]", "stop[2]"},
      {"response.top_logprobs", "top_logprobs"},
      {"response.include_stop", "include_stop_str_in_output"},
      {"kv_policy.text", "kv_policy"},
      {"kv_policy.commit_at", "kv_commit_at"},
      {"cache.salt", "cache_salt"},
      {"tokenized.ids[4]", "prompt"},
      {"content[0].text", "prompt"},
      {"model", "model"},
      {"messages[1].role", "messages[1].role"},
      {"messages[0].content[1].image", "messages[0].content[1].image_url"},
      {"messages[0].content[1].image.url", "messages[0].content[1].image_url.url"},
  };
  for (const auto& [path, param] : kCases) {
    const auto error = OpenAiError(FieldError(path, "why"), "r1")["error"];
    EXPECT_EQ(error["param"], param);
    EXPECT_EQ(error["message"], std::string(param) + ": why");
  }
}

TEST(HttpErrorTest, UnknownParametersKeepTheClientsWord) {
  const absl::Status status = FieldError("content", "unknown parameter", reason::kUnknownField);
  EXPECT_EQ(OpenAiError(status, "r1")["error"]["param"], "content");
}

TEST(HttpErrorTest, OtherErrorsNameNoParameter) {
  const auto error = OpenAiError(absl::InvalidArgumentError("top_p: why"), "r1")["error"];
  EXPECT_TRUE(error["param"].is_null());
  EXPECT_EQ(error["message"], "top_p: why");
}

}  // namespace
}  // namespace tessera
