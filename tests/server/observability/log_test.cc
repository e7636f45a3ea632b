#include "server/observability/log.h"

#include <unistd.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tessera {
namespace {

using testing::HasSubstr;

TEST(LogTest, JsonSurvivesHostileText) {
  const std::string hostile = "quote\" slash\\ \n\r\t \x01 \x7f \xff bad \xe2\x82\xac \xed\xa0\x80";
  const std::string body = FormatLogBody(LogFormat::kJson, hostile,
                                         {{"key\"", hostile},
                                          {"n", 3},
                                          {"x", 0.25},
                                          {"t", true},
                                          {"nan", std::nan("")},
                                          {"big", int64_t{1} << 40}});
  EXPECT_EQ(body.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse("{" + body + "}");
  EXPECT_THAT(json["msg"].get<std::string>(), HasSubstr("quote\" slash\\ \n\r\t \x01"));
  EXPECT_THAT(json["msg"].get<std::string>(), HasSubstr("\xEF\xBF\xBD bad \xe2\x82\xac"));
  EXPECT_EQ(json["key\""], json["msg"]);
  EXPECT_EQ(json["n"], 3);
  EXPECT_EQ(json["x"], 0.25);
  EXPECT_EQ(json["t"], true);
  EXPECT_TRUE(json["nan"].is_null());
  EXPECT_EQ(json["big"], int64_t{1} << 40);
}

TEST(LogTest, TextStaysOnOneLine) {
  const std::string body =
      FormatLogBody(LogFormat::kText, "a\nb", {{"plain", "x"}, {"spaced", "x \"y\""}, {"e", ""}});
  EXPECT_EQ(body, "a\\nb plain=x spaced=\"x \\\"y\\\"\" e=\"\"");
}

TEST(LogTest, WritesFileAboveItsLevel) {
  LogOptions options;
  options.file = absl::StrCat(testing::TempDir(), "tesserad.log.", getpid());
  options.level = LogLevel::kInfo;
  {
    auto log = Logger::Open(options);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write(LogLevel::kDebug, "not this");
    (*log)->Write(LogLevel::kInfo, "percent %d {} braces", {{"request_id", "r1"}});
  }
  std::ifstream in(options.file);
  std::stringstream text;
  text << in.rdbuf();
  std::remove(options.file.c_str());
  const auto json = nlohmann::json::parse(text.str());  // exactly one line
  EXPECT_EQ(json["msg"], "percent %d {} braces");
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["request_id"], "r1");
  EXPECT_THAT(json["ts"].get<std::string>(),
              testing::MatchesRegex("....-..-..T..:..:..[.]......Z"));
}

TEST(LogTest, UnwritableFileIsAnError) {
  LogOptions options;
  options.file = "/nonexistent/dir/tesserad.log";
  const auto log = Logger::Open(options);
  ASSERT_FALSE(log.ok());
  EXPECT_THAT(std::string(log.status().message()), HasSubstr("/nonexistent/dir/tesserad.log"));
  EXPECT_THAT(std::string(log.status().message()), HasSubstr("--log_file"));
}

TEST(LogTest, ParsesNames) {
  EXPECT_EQ(*ParseLogLevel("warning"), LogLevel::kWarning);
  EXPECT_FALSE(ParseLogLevel("loud").ok());
  EXPECT_EQ(*ParseLogFormat("text"), LogFormat::kText);
  EXPECT_FALSE(ParseLogFormat("xml").ok());
}

}  // namespace
}  // namespace tessera
