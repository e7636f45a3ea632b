// The largest steps, run before there are requests: they are as large as the engine's can be, and
// nothing is left of them.
#include "engine/runtime/warm_up.h"

#include <algorithm>

#include "base/base.h"
#include "engine/statistics/low_pass_residuals.h"
#include "gmock/gmock.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/wrapped_model.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Checkpoint;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::SourcePath;

struct Step {
  int rows, sequences, sampled, most_tokens;  // tokens: of a sequence
  bool operator==(const Step&) const = default;
};
void PrintTo(const Step& s, std::ostream* out) {
  *out << s.rows << " rows, " << s.sequences << " sequences, " << s.sampled << " sampled, "
       << s.most_tokens << " tokens";
}

class Noted final : public testing::WrappedModel {
 public:
  using WrappedModel::WrappedModel;
  std::vector<std::shared_ptr<const ImageFeatures>> EncodeImages(
      const std::vector<const PreparedImage*>& images) override {
    pictures += std::ssize(images);
    return WrappedModel::EncodeImages(images);
  }
  void Forward(const Batch& batch, uint8_t* arena) override {
    steps.push_back({batch.rows(), batch.sequences(), static_cast<int>(batch.sampled_rows.size()),
                     1 + *std::max_element(batch.positions.begin(), batch.positions.end())});
    WrappedModel::Forward(batch, arena);
  }
  bool BeginLowPass(const uint8_t* arena, const std::vector<PageId>& pages,
                    const PromptView& prompt,
                    const std::vector<LowPassSegment>& segments) override {
    const bool begun = WrappedModel::BeginLowPass(arena, pages, prompt, segments);
    EXPECT_EQ(segments.size(), 1u);
    EXPECT_EQ(segments[0].tokens, prompt.tokens());
    if (begun) low_pass.emplace_back(segments[0].tokens, segments[0].kept);
    return begun;
  }
  int64_t pictures = 0;
  std::vector<std::pair<int, int>> low_pass;  // tokens, kept coefficients
  std::vector<Step> steps;
};

std::unique_ptr<Noted> Load() {
  return std::make_unique<Noted>(
      testing::LoadCheckpoint(SourcePath("models/demo"), "cpu", /*max_rows=*/300).model);
}

TEST(WarmUpTest, StepsAreAsLargeAsTheyCanBe) {
  const auto model = Load();
  const KvGeometry geometry = model->config().text.kv_geometry();
  const int64_t page_bytes = PageBytes(Format::kRaw16, geometry);
  const int per_picture = model->config().tokens_per_image();
  // Room for ten sequences of 32 tokens: more than they may have, and less.
  const int64_t pages = int64_t{geometry.layers} * 20;
  const Buffer arena = model->ops().Allocate(pages * page_bytes);
  WarmUp(*model, {300, 10, 24}, arena.get(), pages * page_bytes);
  EXPECT_THAT(model->steps, ElementsAre(Step{300, 13, 10, 24}, Step{10, 10, 10, 24}));
  EXPECT_EQ(model->pictures, (300 + per_picture - 1) / per_picture);
  model->steps.clear();
  WarmUp(*model, {200, 10, 1000}, arena.get(), pages * page_bytes);
  EXPECT_THAT(model->steps, ElementsAre(Step{200, 1, 10, 200}, Step{10, 10, 10, 32}));
  model->steps.clear();
  WarmUp(*model, {3, 3, 1}, arena.get(), page_bytes);  // one page in all
  EXPECT_THAT(model->steps, ElementsAre(Step{3, 3, 3, 1}, Step{3, 3, 3, 1}));
  EXPECT_THAT(model->low_pass, IsEmpty());
}

// The longest prompts that the context or the arena allows: as many as are measured at once.
TEST(WarmUpTest, LowPassResidualsAreRehearsedWhereTheyMayBeAskedFor) {
  const auto model = Load();
  const KvGeometry geometry = model->config().text.kv_geometry();
  const int64_t bytes = int64_t{geometry.layers} * 5 * PageBytes(Format::kRaw16, geometry);
  const Buffer arena = model->ops().Allocate(bytes);
  for (const auto& [context, tokens] : {std::pair(41, 41), std::pair(1000, 80)}) {
    model->low_pass.clear();
    WarmUp(*model, {10, 10, context, /*low_pass=*/true}, arena.get(), bytes);
    std::vector<std::pair<int, int>> expected(LowPassMeasurement::kMost,
                                              {tokens, CeilDiv(tokens, 5)});
    expected[0].second = tokens;
    EXPECT_EQ(model->low_pass, expected) << context;
  }
}

TEST(WarmUpTest, AnEngineThatRehearsedAnswersTheSame) {
  const std::string dir = SourcePath("models/demo");
  const nlohmann::json question = testing::ReadLines(SourcePath("tests/eval/questions.jsonl"))[0];
  Answer answers[2];
  for (const bool warm_up : {false, true}) {
    Checkpoint c = testing::LoadCheckpoint(dir);
    EngineOptions options;
    options.kv_cache_bytes = 32 << 20;
    options.warm_up = options.warm_up_low_pass = warm_up;
    const Prompt prompt = testing::PromptOfQuestion(c, question, SourcePath("tests/eval"));
    Engine engine(std::move(c.model), c.tokenizer, options, nullptr);
    EXPECT_EQ(engine.Load().kv_bytes_used, 0);
    answers[warm_up] = testing::Ask(engine, testing::MakeRequest("a", prompt, 12));
  }
  EXPECT_FALSE(answers[0].ids.empty());
  EXPECT_EQ(answers[0].ids, answers[1].ids);
  EXPECT_EQ(answers[0].logprobs, answers[1].logprobs);
}

}  // namespace
}  // namespace tessera
