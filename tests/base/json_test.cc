#include "base/json.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace tessera {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(JsonTest, ParsesEveryKindOfValue) {
  const auto json = ParseJson(R"( {"a": [1, -2, 3.5, 1e3, true, false, null, "x\u00e9\n"],
                                   "b": {"c": {}, "d": []}, "e": 18446744073709551615} )",
                              "t");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(),
            "{\"a\":[1,-2,3.5,1000.0,true,false,null,\"xé\\n\"],\"b\":{\"c\":{},\"d\":[]},"
            "\"e\":18446744073709551615}");
}

// ParseJson and the library agree on documents that both accept.
TEST(JsonTest, AgreesWithTheLibrary) {
  for (const char* text :
       {"0", "\"\"", "[]", "{}", "[[[]],[{}],{\"k\":[{\"k\":{\"j\":1}}]}]", "[1,[2,[3,[4]]],5]",
        "{\"a\":{\"b\":[1,2]},\"c\":[{\"d\":1},{\"e\":[]}]}", "-0", "1e-400",
        "\"\\ud83d\\ude00\""}) {
    const auto json = ParseJson(text, "t");
    ASSERT_TRUE(json.ok()) << text << json.status();
    EXPECT_EQ(*json, nlohmann::json::parse(text)) << text;
  }
}

// Long plain strings are cut out before parsing. The result must not depend on that, whatever
// follows the plain part and wherever the string stands.
TEST(JsonTest, LongStringsAreTheLibrarysToo) {
  const std::string rest[] = {"",        "x", "\\n",         "\\\"",        "\\\\",
                              "\\u00e9", "é", "\\\\\\\"end", "\\\"],[\\\"", " \\/ "};
  for (const size_t size : {63, 64, 1023, 1024, 1025, 1087, 1088, 4096, 100'000}) {
    std::string plain;
    for (size_t i = 0; i < size; ++i) plain += static_cast<char>('#' + i % 57);  // "#" to "["
    for (const std::string& end : rest) {
      const std::string s = absl::StrCat("\"", plain, end, "\"");
      for (const std::string& text :
           {s, absl::StrCat("[", s, ",\"\",", s, ",1]"), absl::StrCat("{\"a\":", s, ",", s, ":{}}"),
            absl::StrCat("[\"\\\"\",", s, ",\"b\",{", s, ":", s, "}]")}) {
        const auto json = ParseJson(text, "t");
        ASSERT_TRUE(json.ok()) << size << end << json.status();
        EXPECT_EQ(*json, nlohmann::json::parse(text)) << size << end;
      }
    }
  }
}

TEST(JsonTest, MistakesNextToLongStringsAreFound) {
  const std::string s = absl::StrCat("\"", std::string(5000, 'a'), "\"");
  for (const std::string& text :
       {absl::StrCat("[", s), absl::StrCat("[", s, s, "]"), absl::StrCat(s, ":1"),
        s.substr(0, s.size() - 1), absl::StrCat("[", s, ",\"\x01\"]"),
        absl::StrCat("\"", std::string(5000, 'a'), "\x01\""),
        absl::StrCat("\"", std::string(5000, 'a'), "\xff\""),
        absl::StrCat("\"", std::string(5000, 'a'), "\\"), absl::StrCat("[a", s, "]"),
        absl::StrCat("{", s, ":1,", s, ":2}")}) {
    EXPECT_TRUE(Fails(ParseJson(text, "t"), kInvalid, {"t: "})) << text.size();
  }
  // Positions count bytes of the original text.
  EXPECT_TRUE(Fails(ParseJson(absl::StrCat("[", s, ",nul]"), "t"), kInvalid,
                    {absl::StrCat("at byte ", 1 + s.size() + 5)}));
  EXPECT_TRUE(Fails(ParseJson(absl::StrCat("[nul,", s, "]"), "t"), kInvalid, {"at byte 5"}));
}

TEST(JsonTest, RefusesWhatIsNotJson) {
  for (const char* text :
       {"",        " ",          "{",        "[1,]", "{\"a\":}", "{\"a\" 1}", "nul",
        "NaN",     "[Infinity]", "1 2",      "{} x", "'a'",      "\"\x80\"",  "\"\\ud800\"",
        "[1e999]", "// c\n1",    "\"a\nb\"", "+1",   "01",       "{1:2}"}) {
    EXPECT_TRUE(Fails(ParseJson(text, "file.json"), kInvalid, {"file.json"})) << text;
  }
  EXPECT_FALSE(ParseJson(absl::string_view("\"\0\"", 3), "t").ok());
}

TEST(JsonTest, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_TRUE(Fails(ParseJson(R"({"a":1,"a":2})", "t"), kInvalid, {"duplicate key \"a\""}));
  EXPECT_TRUE(Fails(ParseJson(R"([{"b":{"k":1,"x":[],"k":1}}])", "t"), kInvalid, {"\"k\""}));
  EXPECT_TRUE(ParseJson(R"({"a":{"a":{"a":1}},"b":{"a":1}})", "t").ok());
}

TEST(JsonTest, HoldsItsLimits) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(ParseJson(nested(32), "t").ok());
  EXPECT_TRUE(Fails(ParseJson(nested(33), "t"), kInvalid, {"nested deeper than 32"}));
  EXPECT_TRUE(Fails(ParseJson(std::string(1 << 20, '['), "t"), kInvalid, {"nested deeper"}));
  EXPECT_TRUE(Fails(ParseJson("[1,2,3]", "t", {.max_bytes = 6}), kInvalid, {"7 bytes"}));
  EXPECT_TRUE(ParseJson("[1,2,3]", "t", {.max_values = 4}).ok());
  EXPECT_TRUE(Fails(ParseJson("[1,2,3]", "t", {.max_values = 3}), kInvalid, {"3 values"}));
}

TEST(JsonTest, GetIntChecksTypeAndRange) {
  const auto json = *ParseJson(
      R"({"i":5,"n":null,"f":4.0,"s":"5","b":true,"big":4294967296,"huge":18446744073709551615})",
      "t");
  int v = 7;
  EXPECT_TRUE(GetInt(json, "f.json", "absent", 0, 9, &v).ok());
  EXPECT_TRUE(GetInt(json, "f.json", "n", 0, 9, &v).ok());
  EXPECT_EQ(v, 7);
  EXPECT_TRUE(GetInt(json, "f.json", "i", 5, 5, &v).ok());
  EXPECT_EQ(v, 5);
  EXPECT_TRUE(Fails(GetInt(json, "f.json", "i", 6, 9, &v), kInvalid, {"f.json", "i", "5", "6..9"}));
  EXPECT_FALSE(GetInt(json, "f.json", "i", 0, 4, &v).ok());
  for (const char* key : {"f", "s", "b"}) {
    EXPECT_TRUE(Fails(GetInt(json, "f.json", key, 0, 9, &v), kInvalid, {key, "integer"}));
  }
  EXPECT_FALSE(GetInt(json, "f.json", "big", 0, INT64_MAX, &v).ok());
  EXPECT_FALSE(GetInt(json, "f.json", "huge", INT64_MIN, INT64_MAX, &v).ok());
  EXPECT_EQ(v, 5);
}

TEST(JsonTest, GetFloatBoolString) {
  const auto json = *ParseJson(R"({"f":1e-5,"i":2,"b":true,"s":"x","n":null})", "t");
  float f = 9;
  EXPECT_TRUE(GetFloat(json, "t", "f", 0, 1, &f).ok());
  EXPECT_EQ(f, 1e-5f);
  EXPECT_TRUE(GetFloat(json, "t", "i", 0, 2, &f).ok());
  EXPECT_EQ(f, 2.0f);
  EXPECT_TRUE(GetFloat(json, "t", "n", 0, 2, &f).ok());
  EXPECT_FALSE(GetFloat(json, "t", "i", 0, 1, &f).ok());
  EXPECT_FALSE(GetFloat(json, "t", "s", 0, 1, &f).ok());
  bool b = false;
  EXPECT_TRUE(GetBool(json, "t", "b", &b).ok());
  EXPECT_TRUE(b);
  EXPECT_FALSE(GetBool(json, "t", "i", &b).ok());
  std::string s = "keep";
  EXPECT_TRUE(GetString(json, "t", "n", &s).ok());
  EXPECT_EQ(s, "keep");
  EXPECT_TRUE(GetString(json, "t", "s", &s).ok());
  EXPECT_EQ(s, "x");
  EXPECT_FALSE(GetString(json, "t", "b", &s).ok());
  EXPECT_EQ(FindMember(nlohmann::json::array(), "f"), nullptr);
}

TEST(JsonTest, GetUint64TakesTheWholeRange) {
  const auto json = *ParseJson(R"({"max":18446744073709551615,"minus":-1,"f":1.0,"s":"1"})", "t");
  uint64_t v = 7;
  EXPECT_TRUE(GetUint64(json, "t", "absent", &v).ok());
  EXPECT_EQ(v, 7u);
  EXPECT_TRUE(GetUint64(json, "t", "max", &v).ok());
  EXPECT_EQ(v, ~uint64_t{0});
  for (const char* key : {"minus", "f", "s"}) {
    EXPECT_TRUE(Fails(GetUint64(json, "t", key, &v), kInvalid, {"t: ", key, "2^64-1"}));
  }
}

TEST(JsonTest, GetStringsWantsAListOfStrings) {
  const auto json = *ParseJson(R"({"l":["a","b"],"e":[],"s":"a","o":{},"n":[1],"nn":null})", "t");
  std::vector<std::string> v = {"keep"};
  EXPECT_TRUE(GetStrings(json, "t", "nn", &v).ok());
  EXPECT_EQ(v, std::vector<std::string>({"keep"}));
  EXPECT_TRUE(GetStrings(json, "t", "l", &v).ok());
  EXPECT_EQ(v, std::vector<std::string>({"a", "b"}));
  for (const char* key : {"s", "o", "n"}) {
    EXPECT_TRUE(Fails(GetStrings(json, "t", key, &v), kInvalid, {"t: ", key, "list of strings"}));
  }
  EXPECT_TRUE(GetStrings(json, "t", "e", &v).ok());
  EXPECT_TRUE(v.empty());
}

TEST(JsonTest, AnEmptyNameLeavesNoTrace) {
  EXPECT_EQ(ParseJson("{", "").status().message(), "not valid JSON at byte 2");
  int v = 0;
  EXPECT_EQ(GetInt(*ParseJson(R"({"i":5})", ""), "", "i", 6, 9, &v).message(),
            "i: 5 is outside 6..9");
}

TEST(JsonTest, ReadsFiles) {
  const std::string path = testing::TempDir() + "/json_test.json";
  std::ofstream(path) << "{\"a\":1}";
  EXPECT_EQ(ReadJsonFile(path)->dump(), "{\"a\":1}");
  EXPECT_TRUE(Fails(ReadJsonFile(path, {.max_bytes = 6}), kInvalid, {path, "7 bytes"}));
  EXPECT_EQ(ReadJsonFile(path + "x").status().code(), absl::StatusCode::kNotFound);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace tessera
