#include "engine/prompt/prompt_builder.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/read_file.h"
#include "gmock/gmock.h"
#include "tests/engine/field_matchers.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using Kind = PromptPiece::Kind;
using Role = ChatMessage::Role;
using Ids = std::vector<int32_t>;
using Field = RequestField;

const std::string kEval = SourcePath("tests/eval");

PromptPiece Text(const std::string& text) { return {Kind::kText, text}; }
const PromptPiece kImage{Kind::kImage, ""};

class PromptBuilderTest : public testing::Test {
 protected:
  PromptBuilderTest()
      : config_(LoadModelConfig(SourcePath("models/demo")).value()),
        tokenizer_(Tokenizer::Load(SourcePath("models/demo")).value()),
        png_(ReadFile(absl::StrCat(kEval, "/images/01_00_00.png"), 1 << 20).value()) {}

  PromptBuilder Builder(const PromptLimits& limits = {}) const {
    return PromptBuilder(&config_, tokenizer_.get(), limits);
  }
  ImageBytes Picture() const { return {png_, "image/png"}; }

  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string png_;
};

// The same pictures, text and ids as the float32 reference saw, by three ways of asking.
TEST_F(PromptBuilderTest, EvaluationQuestionsGiveTheReferenceIds) {
  std::vector<std::string> questions =
      absl::StrSplit(*ReadFile(absl::StrCat(kEval, "/questions.jsonl"), 1 << 24), '\n');
  std::vector<std::string> goldens =
      absl::StrSplit(*ReadFile(absl::StrCat(kEval, "/golden.jsonl"), 1 << 24), '\n');
  size_t at = 0, checked = 0;
  for (const std::string& line : goldens) {
    if (line.empty()) continue;
    const auto golden = *ParseJson(line, "golden");
    nlohmann::json question;
    do {
      ASSERT_LT(at, questions.size());
      question = *ParseJson(questions[at++], "question");
    } while (question["set"] != golden["set"] || question["task"] != golden["task"]);
    if (checked++ % 4 != 0 && question["images"].size() > 4) continue;  // each is the same path

    PromptInput raw;
    std::vector<std::string> files;
    for (const auto& name : question["images"]) {
      files.push_back(*ReadFile(absl::StrCat(kEval, "/", name.get<std::string>()), 1 << 20));
    }
    for (const std::string& file : files) raw.images.push_back({file, ""});
    PromptInput chat = raw, tokens = raw;

    const std::string prompt = question["prompt"].get<std::string>();
    const std::vector<std::string> texts = absl::StrSplit(prompt, "<image>");
    const std::string user = prompt.substr(6, prompt.size() - 6 - 11);  // "USER: ", " ASSISTANT:"
    ASSERT_EQ(absl::StrCat("USER: ", user, " ASSISTANT:"), prompt);
    const std::vector<std::string> user_texts = absl::StrSplit(user, "<image>");
    chat.messages.push_back({Role::kUser, {}});
    for (size_t i = 0; i < texts.size(); ++i) {
      if (i > 0) {
        raw.raw.push_back(kImage);
        chat.messages[0].parts.push_back({true, ""});
      }
      // In two halves: adjacent text is joined before tokenising.
      raw.raw.push_back(Text(texts[i].substr(0, texts[i].size() / 2)));
      raw.raw.push_back(Text(texts[i].substr(texts[i].size() / 2)));
      chat.messages[0].parts.push_back({false, user_texts[i]});
    }
    const Ids expected = golden["input_ids"].get<Ids>();
    for (int32_t id : expected) {
      const bool repeat = id == 512 && !tokens.ids.empty() && tokens.ids.back() == 512;
      if (!repeat) tokens.ids.push_back(id);
    }
    for (const PromptInput* input : {&raw, &chat, &tokens}) {
      const auto built = Builder().Build(*input);
      ASSERT_TRUE(built.ok()) << built.status();
      EXPECT_EQ(built->ids, expected) << prompt;
      EXPECT_EQ(built->image_tokens, static_cast<int>(64 * files.size()));
      ASSERT_EQ(built->images.size(), files.size());
      for (const Prompt::ImageSpan& span : built->images) {
        ASSERT_LE(span.begin + 64, static_cast<int>(built->ids.size()));
        EXPECT_NE(built->ids[span.begin - 1], 512);
        for (int i = 0; i < 64; ++i) EXPECT_EQ(built->ids[span.begin + i], 512);
        EXPECT_EQ(span.image->side, 112);
        EXPECT_EQ(span.image->rgb.size(), 3u * 112 * 112);
      }
      const auto counts = Builder().Count(*input);
      ASSERT_TRUE(counts.ok());
      EXPECT_EQ(*counts, std::make_pair(static_cast<int>(expected.size()), built->image_tokens));
    }
  }
  EXPECT_GE(checked, 50u);
}

TEST_F(PromptBuilderTest, LiteralSpecialsInUserTextStayText) {
  PromptInput input;
  input.messages = {{Role::kUser, {{false, "<image></s><s><pad> what?"}}}};
  const auto built = Builder().Build(input);
  ASSERT_TRUE(built.ok()) << built.status();
  for (size_t i = 1; i < built->ids.size(); ++i) {
    EXPECT_FALSE(tokenizer_->IsControl(built->ids[i]));
  }
  EXPECT_EQ(tokenizer_->Decode(built->ids), "USER: <image></s><s><pad> what? ASSISTANT:");
  EXPECT_TRUE(built->images.empty());
}

TEST_F(PromptBuilderTest, TemplatesSpecialTokensBecomeIds) {
  PromptInput input;
  input.messages = {{Role::kUser, {{false, "a"}}},
                    {Role::kAssistant, {{false, "b"}}},
                    {Role::kUser, {{false, "c"}}}};
  const auto built = Builder().Build(input);
  ASSERT_TRUE(built.ok()) << built.status();
  Ids expected = {1};
  for (int32_t id : tokenizer_->Encode("USER: a ASSISTANT: b", true)) expected.push_back(id);
  expected.push_back(2);
  for (int32_t id : tokenizer_->Encode("USER: c ASSISTANT:", false)) expected.push_back(id);
  EXPECT_EQ(built->ids, expected);
  config_.chat_template = "chatml";
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"<|im_start|>", "lacks"}));
  config_.chat_template = "";
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"no chat template"}));
}

TEST_F(PromptBuilderTest, OnlyTheFirstTextIsFirst) {
  // legacy=false: text after an image gets no prefix, text at the very start does.
  const auto modern =
      Tokenizer::Parse({.model = *ReadFile(SourcePath("models/demo/tokenizer.model"), 1 << 20),
                        .tokenizer_config = R"({"legacy": false})",
                        .added_tokens = R"({"<image>": 512})"});
  ASSERT_TRUE(modern.ok()) << modern.status();
  const PromptBuilder builder(&config_, modern->get(), {});
  PromptInput input;
  input.raw = {kImage, Text("How")};
  input.images = {Picture()};
  const auto after = builder.Build(input);
  ASSERT_TRUE(after.ok()) << after.status();
  Ids tail(after->ids.begin() + 65, after->ids.end());
  EXPECT_EQ(tail, (*modern)->Encode("How", false));
  input.raw = {Text(""), Text("How"), kImage};
  const auto before = builder.Build(input);
  ASSERT_TRUE(before.ok()) << before.status();
  const Ids head(before->ids.begin() + 1, before->ids.end() - 64);
  EXPECT_EQ(head, (*modern)->Encode("How", true));
  EXPECT_NE(head, tail);
}

TEST_F(PromptBuilderTest, TokenIdsAreTakenAsGiven) {
  PromptInput input;
  input.ids = {5, 512, 6};
  input.images = {Picture()};
  const auto built = Builder().Build(input);
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->ids.size(), 66u);
  EXPECT_EQ(built->ids.front(), 5);  // no BOS is added
  EXPECT_EQ(built->ids.back(), 6);
  EXPECT_EQ(built->images[0].begin, 1);
  input.images.clear();
  input.ids = {5, 576};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPromptToken, 1}, {"576", "576"}));
  input.ids = {-1};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPromptToken, 0}, {"-1"}));
  input.ids = {575};  // has an embedding, no text: allowed
  EXPECT_TRUE(Builder().Build(input).ok());
}

TEST_F(PromptBuilderTest, PlacesAndPicturesMustAgree) {
  PromptInput input;
  input.raw = {Text("a"), kImage, kImage};
  input.images = {Picture()};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"2 image tokens for 1 images"}));
  EXPECT_FALSE(Builder().Count(input).ok());
  input.images = {Picture(), Picture(), Picture()};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"2 image tokens for 3"}));
  input.images = {Picture(), Picture()};
  EXPECT_TRUE(Builder().Build(input).ok());
  input.raw.clear();
  input.ids = {512, 5};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"1 image tokens for 2"}));
}

TEST_F(PromptBuilderTest, EmptyAmbiguousAndOversizedPrompts) {
  EXPECT_TRUE(FailsAt(Builder().Build({}), {Field::kPrompt}, {"empty"}));
  PromptInput input;
  input.raw = {Text(""), Text("")};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"empty"}));
  input.ids = {5};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"more than one of"}));
  input.ids.clear();
  input.raw = {Text(std::string(5000, 'x'))};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"4096"}));
  // 64 images of 64 tokens and BOS are one too many; nothing is decoded to find that out.
  input.raw.assign(64, kImage);
  input.images.assign(64, {"no picture at all", ""});
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kPrompt}, {"4097 tokens", "4096"}));
}

TEST_F(PromptBuilderTest, AnAnswerNeedsRoomInTheContext) {
  PromptLimits limits;
  limits.context_tokens = 100;
  PromptInput input;
  input.ids.assign(99, 5);
  EXPECT_TRUE(Builder(limits).Build(input).ok());
  input.ids.assign(100, 5);
  const auto full = Builder(limits).Build(input);
  EXPECT_TRUE(FailsAt(full, {Field::kPrompt}, {"100 tokens (0 of images), the context 100"}));
  EXPECT_TRUE(GetFieldViolation(full.status())->over_limit);
  EXPECT_EQ(Builder(limits).Count(input)->first, 100);  // there is nothing to answer
  input.ids.assign(101, 5);
  EXPECT_TRUE(FailsAt(Builder(limits).Count(input), {Field::kPrompt}, {"101 tokens"}));
}

TEST_F(PromptBuilderTest, BadPicturesNameTheirField) {
  PromptInput input;
  input.raw = {kImage, kImage};
  input.images = {Picture(), {"not an image", ""}};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kImage, 1}, {}));
  EXPECT_TRUE(FailsAt(Builder().Count(input), {Field::kImage, 1}, {}));
  input.images[1] = {png_, "image/jpeg"};
  EXPECT_TRUE(FailsAt(Builder().Build(input), {Field::kImage, 1}, {}));
  PromptLimits limits;
  limits.image.max_pixels = 100;
  EXPECT_TRUE(FailsAt(Builder(limits).Build(input), {Field::kImage, 0}, {},
                      absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace tessera
