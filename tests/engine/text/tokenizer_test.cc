#include "engine/text/tokenizer.h"

#include <chrono>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/read_file.h"
#include "engine/text/utf8.h"
#include "gmock/gmock.h"
#include "tests/support/paths.h"
#include "tests/support/status_matchers.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<int32_t>;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
const std::string kDemo = SourcePath("models/demo");
const std::string kGolden = SourcePath("tests/golden/tokenizer");

std::string FileText(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, 64 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

std::vector<std::string> Lines(const std::string& path) {
  std::vector<std::string> lines = absl::StrSplit(FileText(path), '\n');
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  return lines;
}

std::unique_ptr<Tokenizer> MustParse(const TokenizerTexts& texts) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Parse(texts);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> Demo() { return std::move(Tokenizer::Load(kDemo)).value(); }

// --- writes tokenizer.model files: protobuf's wire format by hand

std::string Varint(uint64_t v) {
  std::string out;
  for (; v >= 128; v >>= 7) out.push_back(static_cast<char>(v | 128));
  out.push_back(static_cast<char>(v));
  return out;
}
std::string Message(int field, const std::string& body) {
  return Varint(field << 3 | 2) + Varint(body.size()) + body;
}
std::string Number(int field, uint64_t v) { return Varint(field << 3) + Varint(v); }
std::string PieceMessage(const std::string& text, float score, int type) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return Message(1, Message(1, text) + Varint(2 << 3 | 5) + bits + Number(3, type));
}
const std::string kUnkPiece = PieceMessage("<unk>", 0, 2);
const std::string kBpe = Message(2, Number(3, 2));
const std::string kKeepSpaces = Message(3, Number(4, 0));

// --- comparison with SentencePiece

uint64_t Fnv(absl::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return h;
}

class SpmGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Tokenizer> Load() {
    const std::string name = GetParam();
    return MustParse(
        {.model = FileText(name == "demo" ? absl::StrCat(kDemo, "/tokenizer.model")
                                          : absl::StrCat(kGolden, "/", name, ".model"))});
  }
};

TEST_P(SpmGoldenTest, EncodesAsSpmEncode) {
  const auto tokenizer = Load();
  const auto text = Lines(absl::StrCat(kGolden, "/text.txt"));
  const auto golden = Lines(absl::StrCat(kGolden, "/", GetParam(), ".ids"));
  ASSERT_EQ(text.size(), golden.size());
  ASSERT_GT(text.size(), 1000u);
  for (size_t i = 0; i < text.size(); ++i) {
    const Ids ids = tokenizer->Encode(text[i], true);
    const std::string seen = absl::StrFormat("%d %016x", ids.size(), Fnv(absl::StrJoin(ids, " ")));
    ASSERT_EQ(seen, golden[i]) << "line " << i + 1 << ": " << text[i] << "\n"
                               << absl::StrJoin(ids, " ");
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SpmGoldenTest,
                         testing::Values("demo", "bytes", "squeeze", "noprefix"));

class SpmDecodeTest : public SpmGoldenTest {};

TEST_P(SpmDecodeTest, DecodesAsSpmDecode) {
  const auto tokenizer = Load();
  int cases = 0;
  for (const std::string& line : Lines(absl::StrCat(kGolden, "/", GetParam(), ".decode"))) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('\t', 1));
    Ids ids;
    for (absl::string_view id : absl::StrSplit(parts[0], ' ')) {
      ASSERT_TRUE(absl::SimpleAtoi(id, &ids.emplace_back()));
    }
    EXPECT_EQ(tokenizer->Decode(ids), ParseJson(parts[1], "t")->get<std::string>()) << line;
    ++cases;
  }
  EXPECT_GE(cases, 200);
}

INSTANTIATE_TEST_SUITE_P(Models, SpmDecodeTest, testing::Values("demo", "noprefix"));

// --- comparison with the float32 reference's prompts

TEST(TokenizerTest, EvaluationPromptsGiveTheReferenceIds) {
  const auto tokenizer = Demo();
  const std::string eval = SourcePath("tests/eval");
  // (set, task) -> prompt: the golden lines have the same names in the same order.
  std::vector<nlohmann::json> questions;
  for (const std::string& line : Lines(eval + "/questions.jsonl")) {
    questions.push_back(*ParseJson(line, "questions"));
  }
  size_t at = 0, checked = 0;
  for (const std::string& line : Lines(eval + "/golden.jsonl")) {
    const auto golden = *ParseJson(line, "golden");
    while (at < questions.size() &&
           (questions[at]["set"] != golden["set"] || questions[at]["task"] != golden["task"])) {
      ++at;
    }
    ASSERT_LT(at, questions.size()) << line.substr(0, 60);
    Ids ids = {tokenizer->bos()};
    const std::vector<std::string> texts =
        absl::StrSplit(questions[at]["prompt"].get<std::string>(), "<image>");
    for (size_t i = 0; i < texts.size(); ++i) {
      if (i > 0) ids.insert(ids.end(), 64, tokenizer->IdOf("<image>"));
      const Ids part = tokenizer->Encode(texts[i], i == 0);
      ids.insert(ids.end(), part.begin(), part.end());
    }
    EXPECT_EQ(ids, golden["input_ids"].get<Ids>()) << questions[at]["prompt"];
    ++at, ++checked;
  }
  EXPECT_GE(checked, 20u);
}

// --- special tokens

TEST(TokenizerTest, DemoFacts) {
  const auto t = Demo();
  EXPECT_EQ(t->vocab_size(), 514);
  EXPECT_EQ(t->bos(), 1);
  EXPECT_TRUE(t->add_bos());
  EXPECT_EQ(t->IdOf("<image>"), 512);
  EXPECT_EQ(t->IdOf("<pad>"), 513);
  EXPECT_EQ(t->IdOf("</s>"), 2);
  EXPECT_EQ(t->IdOf("kettle"), -1);
  EXPECT_EQ(t->IdOf(""), -1);
  for (int32_t id : {0, 1, 2, 512, 513}) {
    EXPECT_TRUE(t->IsControl(id)) << id;
    EXPECT_EQ(t->TokenBytes(id), "") << id;
  }
  EXPECT_FALSE(t->IsControl(3));
  EXPECT_FALSE(t->IsControl(400));
  EXPECT_EQ(t->Piece(512), "<image>");
  EXPECT_EQ(t->TokenBytes(13), "\n");
  for (int32_t id : {-1, 514, 575, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(t->TokenBytes(id), "");
    EXPECT_EQ(t->Piece(id), "");
    EXPECT_FALSE(t->IsControl(id));
  }
}

TEST(TokenizerTest, TextNeverBecomesASpecialToken) {
  const auto t = Demo();
  for (const char* text : {"<image>", "</s>", "<s>", "<unk>", "<pad>", "a</s>b", "<s></s><image>",
                           " <image> ", "<0x41>", "\xE2\x96\x81<image>"}) {
    for (bool first : {true, false}) {
      const Ids ids = t->Encode(text, first);
      for (int32_t id : ids) EXPECT_FALSE(t->IsControl(id)) << text << " -> " << id;
      EXPECT_EQ(t->Decode(ids),
                absl::string_view(text) == "\xE2\x96\x81<image>" ? " <image>" : text);
    }
  }
}

// A checkpoint may store <|im_start|> as an ordinary or user-defined piece and declare it special.
// Text must not encode to it, and the template must find it.
TEST(TokenizerTest, DeclaredSpecialPiecesDoNotMatchText) {
  const std::string model = kUnkPiece + PieceMessage("<s>", 0, 3) + PieceMessage("<|a|>", 0, 4) +
                            PieceMessage("<|b|>", 0, 4) + PieceMessage("<", -1, 1) +
                            PieceMessage("|", -2, 1) + kBpe + kKeepSpaces;
  const auto plain = MustParse({.model = model});
  EXPECT_THAT(plain->Encode("<|a|>", true), ElementsAre(0, 2));  // the prefix "▁" is unknown here
  EXPECT_EQ(plain->IdOf("<|a|>"), -1);
  for (const TokenizerTexts& texts :
       {TokenizerTexts{model, R"({"additional_special_tokens": ["<|a|>"]})", "", ""},
        TokenizerTexts{model, R"({"additional_special_tokens": [{"content": "<|a|>"}]})", "", ""},
        TokenizerTexts{model, R"({"eos_token": {"content": "<|a|>"}})", "", ""},
        TokenizerTexts{model, "", "", R"({"eos_token": "<|a|>"})"},
        TokenizerTexts{model, "", R"({"<|a|>": 2})", ""},
        TokenizerTexts{model,
                       R"({"added_tokens_decoder": {"2": {"content": "<|a|>", "special": true}}})",
                       "", ""}}) {
    const auto special = MustParse(texts);
    ASSERT_NE(special, nullptr);
    EXPECT_EQ(special->IdOf("<|a|>"), 2);
    EXPECT_TRUE(special->IsControl(2));
    EXPECT_THAT(special->Encode("<|a|><|b|>", true), ElementsAre(0, 4, 5, 0, 5, 0, 3));
  }
}

TEST(TokenizerTest, AddedTokensAreChecked) {
  const std::string model = kUnkPiece + PieceMessage("<s>", 0, 3) + PieceMessage("a", 0, 1) + kBpe;
  const auto config = [&](const std::string& text) {
    return Tokenizer::Parse({.model = model, .tokenizer_config = text});
  };
  const auto added = [&](const std::string& text) {
    return Tokenizer::Parse({.model = model, .added_tokens = text});
  };
  EXPECT_EQ((*added(R"({"<image>": 7})"))->vocab_size(), 8);
  EXPECT_TRUE(Fails(added(R"({"<image>": 2})"), kInvalid, {"<image>", "contradicts"}));
  EXPECT_TRUE(Fails(added(R"({"a": 5})"), kInvalid, {"contradicts"}));
  EXPECT_TRUE(Fails(added(R"({"x": 5, "y": 5})"), kInvalid, {"two added tokens"}));
  EXPECT_TRUE(Fails(added(R"({"x": -1})"), kInvalid, {"added_tokens.json"}));
  EXPECT_TRUE(Fails(added(R"({"x": 99999999})"), kInvalid, {"added_tokens.json"}));
  EXPECT_TRUE(Fails(added(R"({"x": "5"})"), kInvalid, {"integer"}));
  EXPECT_TRUE(Fails(added(R"([])"), kInvalid, {"not an object"}));
  EXPECT_TRUE(Fails(config(R"({"added_tokens_decoder": {"7": {"content": "x"}}})"), kUnimplemented,
                    {"\"x\" is not special"}));
  EXPECT_TRUE(Fails(
      config(
          R"({"added_tokens_decoder": {"7": {"content": "x", "special": true, "lstrip": true}}})"),
      kUnimplemented, {"added token 7"}));
  EXPECT_TRUE(
      Fails(config(R"({"added_tokens_decoder": {"x": {"content": "x"}}})"), kInvalid, {"bad id"}));
  EXPECT_TRUE(Fails(config(R"({"add_eos_token": true})"), kUnimplemented, {"add_eos_token"}));
  EXPECT_TRUE(Fails(config(R"({"legacy": "no"})"), kInvalid, {"legacy"}));
  EXPECT_FALSE((*config(R"({"add_bos_token": false})"))->add_bos());
  EXPECT_FALSE((*config(R"({"bos_token": null})"))->add_bos());
  EXPECT_EQ((*config(R"({"bos_token": null})"))->bos(), -1);
}

// --- legacy

TEST(TokenizerTest, LegacyPrefixesEveryTextElseOnlyTheFirst) {
  const std::string model = FileText(absl::StrCat(kDemo, "/tokenizer.model"));
  const auto legacy = MustParse({.model = model, .tokenizer_config = R"({"legacy": true})"});
  const auto modern = MustParse({.model = model, .tokenizer_config = R"({"legacy": false})"});
  const auto bare = MustParse(
      {.model = model, .tokenizer_config = R"({"legacy": false, "add_prefix_space": false})"});
  const Ids with_prefix = legacy->Encode("\nHow", true);
  EXPECT_EQ(legacy->Encode("\nHow", false), with_prefix);
  EXPECT_EQ(modern->Encode("\nHow", true), with_prefix);
  const Ids without(with_prefix.begin() + 1, with_prefix.end());  // 461 is "▁"
  ASSERT_EQ(with_prefix[0], 461);
  EXPECT_EQ(modern->Encode("\nHow", false), without);
  EXPECT_EQ(bare->Encode("\nHow", true), without);
  EXPECT_EQ(modern->Decode(modern->Encode(" two", true)), " two");
  EXPECT_EQ(bare->Decode(bare->Encode(" two", true)), " two");
  EXPECT_TRUE(modern->Encode("", true).empty());
  EXPECT_TRUE(legacy->Encode("", true).empty());
}

// --- robustness

TEST(TokenizerTest, AnyTextComesBack) {
  const auto t = Demo();
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int n = random() % 40; n > 0; --n) {
      switch (random() % 5) {
        case 0:
          absl::StrAppend(&text, "the ");
          break;
        case 1:
          absl::StrAppend(&text, "😀é的");
          break;
        case 2:
          text.push_back(static_cast<char>(random() % 128));
          break;
        case 3:
          absl::StrAppend(&text, "  ");
          break;
        default:
          text.push_back(static_cast<char>(random() % 256));  // mostly invalid
      }
    }
    std::string expected;  // invalid bytes become U+FFFD
    for (absl::string_view rest = text; !rest.empty();) {
      const int length = Utf8Length(rest);
      expected += length > 0 ? std::string(rest.substr(0, length)) : kReplacementCharacter;
      rest.remove_prefix(length > 0 ? length : 1);
    }
    ASSERT_EQ(t->Decode(t->Encode(text, true)), expected);
  }
}

TEST(TokenizerTest, LongTextIsQuickAndExact) {
  const auto t = Demo();
  std::string repeated, varied;
  std::mt19937 random(1);
  while (varied.size() < (1 << 20)) {
    absl::StrAppend(&varied, "the triangle ", random() % 1000, random() % 3 ? " " : "的😀  \n");
  }
  for (const std::string& text : {varied, std::string(1 << 20, 'a'), std::string(1 << 20, ' '),
                                  std::string(1 << 20, '\xff')}) {
    const auto begin = std::chrono::steady_clock::now();
    const Ids ids = t->Encode(text, true);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(seconds.count(), 100.0);  // a second or less; a quadratic merge takes many minutes
    if (text[0] != '\xff') {
      EXPECT_EQ(t->Decode(ids), text);
    }
  }
}

TEST(TokenizerTest, RefusesModelsItDoesNotEncode) {
  const auto parse = [](const std::string& model) { return Tokenizer::Parse({.model = model}); };
  EXPECT_TRUE(Fails(parse(kUnkPiece), kUnimplemented, {"model type 1", "BPE"}));
  EXPECT_TRUE(Fails(parse(kUnkPiece + Message(2, Number(3, 4))), kUnimplemented, {"type 4"}));
  EXPECT_TRUE(Fails(parse(kUnkPiece + kBpe + Message(3, Message(2, "map"))), kUnimplemented,
                    {"tokenizer.model", "character map"}));
  EXPECT_TRUE(Fails(parse(kUnkPiece + Message(2, Number(3, 2) + Number(24, 1))), kUnimplemented,
                    {"suffix"}));
}

TEST(TokenizerTest, RefusesBrokenModels) {
  const auto fails = [](const std::string& model, const char* why) {
    return Fails(Tokenizer::Parse({.model = model}), kInvalid, {"tokenizer.model", why});
  };
  EXPECT_TRUE(fails("", "no pieces"));
  EXPECT_TRUE(fails(kBpe, "no pieces"));
  EXPECT_TRUE(fails(PieceMessage("a", 0, 1) + kBpe, "0 unknown"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage("u", 0, 2) + kBpe, "2 unknown"));
  EXPECT_TRUE(fails(kUnkPiece + kUnkPiece + kBpe, "twice"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage("", 0, 1) + kBpe, "length"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage(std::string(513, 'a'), 0, 1) + kBpe, "length"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage("\xff", 0, 1) + kBpe, "UTF-8"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage("a", NAN, 1) + kBpe, "finite"));
  EXPECT_TRUE(fails(kUnkPiece + PieceMessage("<0x41>", 0, 6) + kBpe, "byte"));
  EXPECT_TRUE(fails(kUnkPiece + Message(2, Number(3, 2) + Number(35, 1)), "0 byte pieces"));
  EXPECT_TRUE(
      fails(kUnkPiece + PieceMessage("<0x4>", 0, 6) + Message(2, Number(3, 2) + Number(35, 1)),
            "<0xNN>"));
  EXPECT_TRUE(Fails(Tokenizer::Parse({.model = kUnkPiece + PieceMessage("a", 0, 9) + kBpe}),
                    absl::StatusCode::kDataLoss, {"tokenizer.model"}));
}

// A model that is cut short or has flipped bytes gives an error or a tokenizer, never a crash.
TEST(TokenizerTest, DamagedModelsDoNoHarm) {
  const std::string model = FileText(absl::StrCat(kDemo, "/tokenizer.model"));
  for (size_t size = 0; size < model.size(); size += 13) {
    const auto t = Tokenizer::Parse({.model = model.substr(0, size)});
    EXPECT_FALSE(t.ok()) << size;  // pieces of bytes or settings at the end are missing
  }
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string damaged = model;
    for (int n = 1 + random() % 3; n > 0; --n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto t = Tokenizer::Parse({.model = damaged});
    if (!t.ok()) continue;
    for (int32_t id : (*t)->Encode("the <image> 😀 kettle", true)) {
      EXPECT_TRUE(id >= 0 && id < (*t)->vocab_size());
    }
  }
}

TEST(TokenizerTest, LoadNamesTheMissingFile) {
  EXPECT_TRUE(Fails(Tokenizer::Load("/nonexistent"), absl::StatusCode::kNotFound,
                    {"/nonexistent/tokenizer.model"}));
}

// --- streaming

TEST(DetokenizerTest, HoldsBackUnfinishedCharacters) {
  const auto t = Demo();
  const auto byte = [](uint8_t b) { return 3 + b; };
  Detokenizer d(t.get());
  EXPECT_EQ(d.Add(byte(0xF0)), "");
  EXPECT_EQ(d.Add(byte(0x9F)), "");
  EXPECT_EQ(d.Add(byte(0x98)), "");
  EXPECT_EQ(d.Add(byte(0x80)), "😀");
  EXPECT_EQ(d.Add(byte(0xE2)), "");
  EXPECT_EQ(d.Add(byte(0x82)), "");
  EXPECT_EQ(d.Add(byte('a')), "\uFFFD\uFFFDa");
  EXPECT_EQ(d.Add(byte(0xFF)), "\uFFFD");
  EXPECT_EQ(d.Add(byte(0xC3)), "");
  EXPECT_EQ(d.Finish(), "\uFFFD");
  EXPECT_EQ(d.Finish(), "");
}

TEST(DetokenizerTest, StripsTheDummySpaceOnceAndOnlyAtTheStart) {
  const auto t = Demo();
  const Ids ids = t->Encode("two  images", true);
  Ids twice = ids;
  twice.insert(twice.end(), ids.begin(), ids.end());
  EXPECT_EQ(t->Decode(twice), "two  images two  images");
  Ids after_control = {1, 512};
  after_control.insert(after_control.end(), ids.begin(), ids.end());
  EXPECT_EQ(t->Decode(after_control), "two  images");
  EXPECT_EQ(t->Decode({461}), "");
  EXPECT_EQ(t->Decode({461, 461}), " ");
  EXPECT_EQ(t->Decode({3 + ' ', 461}), "  ");  // a byte piece is no dummy prefix
  EXPECT_EQ(t->Decode({}), "");
}

TEST(DetokenizerTest, StreamEqualsDecodeAndIsValidUtf8) {
  const auto t = Demo();
  std::mt19937 random(9);
  for (int round = 0; round < 500; ++round) {
    Ids ids;
    for (int n = random() % 30; n > 0; --n) ids.push_back(static_cast<int32_t>(random() % 520) - 2);
    Detokenizer d(t.get());
    std::string streamed;
    for (int32_t id : ids) {
      const std::string text = d.Add(id);
      EXPECT_TRUE(IsValidUtf8(text));
      streamed += text;
    }
    streamed += d.Finish();
    EXPECT_EQ(streamed, t->Decode(ids));
  }
}

TEST(Utf8Test, KnowsEveryBoundary) {
  EXPECT_EQ(Utf8Length("a"), 1);
  EXPECT_EQ(Utf8Length("\xC2\x80"), 2);
  EXPECT_EQ(Utf8Length("\xE0\xA0\x80"), 3);
  EXPECT_EQ(Utf8Length("\xF4\x8F\xBF\xBF"), 4);
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5", "\xFF",
                          "\xC2"
                          "a",
                          "\xE2\x82"
                          "a",
                          "\xF0\x9F\x98"
                          "a"}) {
    EXPECT_EQ(Utf8Length(bad), 0) << bad;
  }
  for (const char* cut : {"\xC2", "\xE2", "\xE2\x82", "\xF0", "\xF0\x9F", "\xF0\x9F\x98"}) {
    EXPECT_EQ(Utf8Length(cut), -1) << cut;
  }
}

}  // namespace
}  // namespace tessera
