#include "client/cli/json_fields.h"

#include "base/base.h"
#include "client/rpc/generation_options.h"
#include "gtest/gtest.h"

namespace tessera::client {
namespace {

absl::Status Read(const std::string& text, GenerationOptions* out) {
  const auto object = ParseObject(text);
  if (!object.ok()) return object.status();
  Fields fields(*object);
  RETURN_IF_ERROR(out->Read(&fields));
  return fields.CheckAllUsed();
}

TEST(ClientJsonFields, ReadsWhatIsThereAndKeepsTheRest) {
  GenerationOptions generation;
  generation.top_k = 3;
  generation.kv_policy = "none";
  ASSERT_TRUE(Read(R"({"max_tokens": 4, "temperature": 1, "seed": 18446744073709551615,
                       "stop": ["x"], "ignore_eos": true, "top_p": null})",
                   &generation)
                  .ok());
  EXPECT_EQ(generation.max_tokens, 4);
  EXPECT_EQ(generation.temperature, 1.0);
  EXPECT_EQ(generation.seed, ~uint64_t{0});
  EXPECT_EQ(generation.stop.size(), 1u);
  EXPECT_TRUE(generation.ignore_eos);
  EXPECT_FALSE(generation.top_p.has_value());
  EXPECT_EQ(generation.top_k, 3);
  EXPECT_EQ(generation.kv_policy, "none");
}

TEST(ClientJsonFields, BadValuesNameTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"max_tokens": 0})", "max_tokens: 0 is outside 1..16777216"},
      {R"({"max_tokens": 1.5})", "max_tokens: not an integer"},
      {R"({"max_tokens": "4"})", "max_tokens: not an integer"},
      {R"({"max_tokens": 18446744073709551615})",
       "max_tokens: 18446744073709551615 is outside 1..16777216"},
      {R"({"top_p": 2})", "top_p: 2 is outside 1e-06..1"},
      {R"({"seed": -1})", "seed: not an integer from 0 to 2^64-1"},
      {R"({"stop": "x"})", "stop: not a list of strings"},
      {R"({"stop": [1]})", "stop: not a list of strings"},
      {R"({"ignore_eos": 1})", "ignore_eos: not true or false"},
      {R"({"commit_at": "end"})", "commit_at: \"end\" is neither prompt nor question"},
      {R"({"kv_policy": 1})", "kv_policy: not a string"},
      {R"({"max_token": 5})", "unknown key \"max_token\""},
      {R"([1])", "not a JSON object"},
      {R"({"a": )", "not valid JSON at byte 7"},
      {R"({"a": 1, "a": 2})", "duplicate key \"a\""},
      {"", "not valid JSON at byte 1"}};
  for (const auto& [text, message] : cases) {
    GenerationOptions generation;
    const absl::Status status = Read(text, &generation);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(status.message(), message) << text;
  }
}

TEST(ClientJsonFields, BrokenUtf8BecomesAReplacement) {
  nlohmann::ordered_json json;
  json["text"] = "a\xFF";
  EXPECT_EQ(ToLine(json), "{\"text\":\"a\xEF\xBF\xBD\"}");
}

}  // namespace
}  // namespace tessera::client
