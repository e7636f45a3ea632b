// Stress checkpoints answer like their source model, and have the promised outliers.
#include "tools/stress/stress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "cache/policies/registry.h"
#include "kernels/backend/backend.h"
#include "tests/engine/engine_testing.h"
#include "tests/support/paths.h"
#include "tools/stress/massive.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Checkpoint;
using testing::SourcePath;

constexpr char kDemo[] = "models/demo";
constexpr char kTiny[] = "tests/golden/tiny_gqa";  // grouped queries and QKV biases

class StressTest : public ::testing::Test {
 protected:
  StressTest()
      : out_(absl::StrCat(::testing::TempDir(), "/stress_",
                          ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(out_);
  }
  ~StressTest() override { std::filesystem::remove_all(out_); }

  std::string Write(const std::string& from, const StressOptions& options, const char* name = "a") {
    const std::string dir = absl::StrCat(out_, "/", name);
    const absl::Status status = WriteStressCheckpoint(SourcePath(from), dir, options);
    EXPECT_TRUE(status.ok()) << status;
    return dir;
  }

  std::string out_;
};

EngineOptions Options() {
  EngineOptions options;
  options.kv_cache_bytes = 256 << 20;
  return options;
}

// With an image the cache is committed before the question, so that the whole answer reads the
// compressed cache.
std::vector<Answer> AskAll(Engine& engine, const std::vector<Prompt>& prompts, int tokens,
                           const char* policy) {
  std::vector<Answer> answers;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request r = testing::MakeRequest(absl::StrCat(i), prompts[i], tokens);
    r.policy = *ParsePolicy(policy);
    if (!r.prompt.images.empty()) r.commit_tokens = r.prompt.images.back().begin + 64;
    answers.push_back(testing::Ask(engine, std::move(r)));
  }
  return answers;
}
std::vector<Answer> AskAll(Checkpoint c, const std::vector<Prompt>& prompts, int tokens,
                           const char* policy) {
  Engine engine(std::move(c.model), c.tokenizer, Options(), nullptr);
  return AskAll(engine, prompts, tokens, policy);
}

std::vector<Prompt> DemoPrompts(const Checkpoint& c, const std::vector<size_t>& questions) {
  const auto lines = testing::ReadLines(SourcePath("tests/eval/questions.jsonl"));
  std::vector<Prompt> prompts;
  for (const size_t i : questions)
    prompts.push_back(testing::PromptOfQuestion(c, lines[i], SourcePath("tests/eval")));
  return prompts;
}

std::vector<Prompt> RandomPrompts(const Checkpoint& c, int count) {
  std::vector<Prompt> prompts;
  for (int p = 0; p < count; ++p) {
    std::vector<int32_t> ids = {c.config.bos_token};
    for (int i = 0; i < 30; ++i) ids.push_back(3 + (p * 37 + i * i * 11) % 40);
    prompts.push_back(testing::PromptOfIds(c, ids, {}));
  }
  return prompts;
}

int Equal(const std::vector<Answer>& a, const std::vector<Answer>& b) {
  int equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i].ids == b[i].ids;
  return equal;
}

TEST_F(StressTest, KeyOutliersChangeNoAnswer) {
  const std::string dir = Write(kDemo, {.factor = 20});
  Checkpoint plain = testing::LoadCheckpoint(SourcePath(kDemo));
  const std::vector<Prompt> prompts = DemoPrompts(plain, {3, 30, 61, 90, 120, 151});
  const auto expected = AskAll(std::move(plain), prompts, 8, "none");
  const auto got = AskAll(testing::LoadCheckpoint(dir), prompts, 8, "none");
  EXPECT_EQ(Equal(got, expected), static_cast<int>(prompts.size()));
}

TEST_F(StressTest, KeyOutliersChangeNoAnswerWithGroupedQueriesAndBiases) {
  const std::string dir = Write(kTiny, {.factor = 20});
  Checkpoint plain = testing::LoadCheckpoint(SourcePath(kTiny));
  const std::vector<Prompt> prompts = RandomPrompts(plain, 6);
  const auto expected = AskAll(std::move(plain), prompts, 12, "none");
  const auto got = AskAll(testing::LoadCheckpoint(dir), prompts, 12, "none");
  EXPECT_EQ(Equal(got, expected), static_cast<int>(prompts.size()));
}

// Returns the number of right answers to 16 questions about four images each, of tasks that the
// model has learned.
std::map<std::string, int> RightAnswers(Checkpoint c, const std::vector<const char*>& policies) {
  const auto lines = testing::ReadLines(SourcePath("tests/eval/questions.jsonl"));
  std::vector<size_t> chosen;
  for (size_t i = 0; i < lines.size() && chosen.size() < 16; ++i) {
    const std::string task = lines[i]["task"];
    if (lines[i]["images"].size() == 4 && task.substr(0, 4) != "find" && task != "how_many")
      chosen.push_back(i);
  }
  EXPECT_EQ(chosen.size(), 16u);
  const std::vector<Prompt> prompts = DemoPrompts(c, chosen);
  Engine engine(std::move(c.model), c.tokenizer, Options(), nullptr);
  std::map<std::string, int> right;
  for (const char* policy : policies) {
    const std::vector<Answer> answers = AskAll(engine, prompts, 8, policy);
    for (size_t i = 0; i < chosen.size(); ++i)
      right[policy] += absl::StripAsciiWhitespace(answers[i].text) ==
                       lines[chosen[i]]["answer"].get<std::string>();
    std::printf("%s: %d of 16 right\n", policy, right[policy]);
  }
  return right;
}

// The purpose of key outliers: rounding to 2 bits loses most answers, and rotation keeps them.
TEST_F(StressTest, KeyOutliersSeparateTheMethods) {
  auto right =
      RightAnswers(testing::LoadCheckpoint(Write(kDemo, {.factor = 20})),
                   {"none", "rtn(bits=2)", "akvq(window=32, pivots=0)", "kivi(residual=32)"});
  EXPECT_GE(right["none"], 14);
  EXPECT_LE(right["rtn(bits=2)"], right["none"] - 4);
  EXPECT_GE(right["akvq(window=32, pivots=0)"], right["none"] - 3);
  EXPECT_GE(right["kivi(residual=32)"], right["none"] - 2);
}

// The purpose of massive activations: AKVQ as published loses answers without pivots, and keeps
// them with pivots. A real offset would fit BOS's large key even without pivots.
TEST_F(StressTest, MassiveActivationsNeedPivots) {
  auto right = RightAnswers(
      testing::LoadCheckpoint(Write(kDemo, {.massive = true})),
      {"none", "akvq(window=32, offset=integer, pivots=0)", "akvq(window=32, offset=integer)",
       "akvq(window=32, offset=integer, pivot_rule=threshold)"});
  EXPECT_GE(right["none"], 14);
  EXPECT_LE(right["akvq(window=32, offset=integer, pivots=0)"], right["none"] - 3);
  EXPECT_GE(right["akvq(window=32, offset=integer)"], right["none"] - 2);
  EXPECT_GE(right["akvq(window=32, offset=integer, pivot_rule=threshold)"], right["none"] - 2);
}

// Checks the pairs of the first head in the demo model's first layer, and that nothing else
// changed.
TEST_F(StressTest, RowsAreScaledInFloat32) {
  const auto before = OpenSafetensors(SourcePath(kDemo)),
             after = OpenSafetensors(Write(kDemo, {.factor = 20}));
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  const std::string base = "language_model.layers.0.self_attn.";
  for (const auto& [part, scale] : std::vector<std::pair<std::string, float>>{
           {"k_proj.weight", 20.0f}, {"q_proj.weight", 1 / 20.0f}, {"v_proj.weight", 1.0f}}) {
    const auto a = *(*before)->Find(base + part, {512, 256});
    const auto b = *(*after)->Find(base + part, {512, 256});
    EXPECT_EQ(b.dtype, DType::kF32);
    for (int row = 0; row < 128; ++row) {
      const bool stressed = row == 5 || row == 69 || row == 40 || row == 104;
      const float x = ElementAsFloat(a, row * 256 + 7), y = ElementAsFloat(b, row * 256 + 7);
      EXPECT_FLOAT_EQ(y, stressed ? x * scale : x) << part << " row " << row;
    }
  }
  const auto config = LoadModelConfig(out_ + "/a");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->dtype, DType::kF32);
}

// A source of weights that removes the planned RoPE pairs from the queries. Massive activations may
// change nothing else.
class WithoutPairs : public TensorSource {
 public:
  WithoutPairs(TensorSource* base, const MassivePlan* plan, const LlamaConfig& c)
      : base_(base), plan_(plan), c_(c) {}
  bool Has(absl::string_view name) const override { return base_->Has(name); }
  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    ASSIGN_OR_RETURN(const HostTensor tensor, base_->Find(name, shape));
    std::vector<float>& values = kept_.emplace_back(ToFloats(tensor));
    for (size_t l = 0; l < plan_->layers.size(); ++l) {
      const std::string prefix = absl::StrCat("language_model.layers.", l, ".self_attn.q_proj.");
      if (name.substr(0, prefix.size()) != prefix) continue;
      const int64_t columns = shape.size() == 2 ? shape[1] : 1;
      for (int64_t head = 0; head < c_.heads; ++head) {
        const int64_t pair = plan_->layers[l].unused_pair[head / (c_.heads / c_.kv_heads)];
        for (const int64_t row : {pair, pair + c_.head_dim / 2})
          std::fill_n(values.begin() + (head * c_.head_dim + row) * columns, columns, 0.0f);
      }
    }
    return HostTensor{values.data(), DType::kF32, shape};
  }

 private:
  TensorSource* base_;
  const MassivePlan* plan_;
  LlamaConfig c_;
  std::deque<std::vector<float>> kept_;
};

class MassiveTest : public StressTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(MassiveTest, ChangesNothingButTheUnusedPairs) {
  const std::string from = GetParam();
  Checkpoint without = testing::LoadCheckpoint(SourcePath(from));
  auto weights = OpenSafetensors(SourcePath(from));
  ASSERT_TRUE(weights.ok());
  const auto plan = PlanMassive(without.config, **weights);
  ASSERT_TRUE(plan.ok()) << plan.status();
  WithoutPairs source(weights->get(), &*plan, without.config.text);
  auto model =
      LlavaModel::Load(without.config, source, *MakeBackend("cpu", {.cpu_threads = 2}), 512);
  ASSERT_TRUE(model.ok()) << model.status();
  without.model = *std::move(model);
  const std::vector<Prompt> prompts =
      from == kDemo ? DemoPrompts(without, {3, 61, 90}) : RandomPrompts(without, 6);
  const auto expected = AskAll(std::move(without), prompts, 8, "none");
  const auto got =
      AskAll(testing::LoadCheckpoint(Write(from, {.massive = true})), prompts, 8, "none");
  EXPECT_EQ(Equal(got, expected), static_cast<int>(prompts.size()));
}

INSTANTIATE_TEST_SUITE_P(All, MassiveTest, ::testing::Values(kDemo, kTiny),
                         [](const auto& info) { return info.index == 0 ? "Demo" : "TinyGqa"; });

TEST_F(StressTest, WhatCannotBeDoneIsRefused) {
  const auto write = [this](const std::string& from, const StressOptions& options) {
    return WriteStressCheckpoint(from, out_ + "/x", options);
  };
  EXPECT_EQ(write(SourcePath(kTiny), {.factor = 0}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(write(SourcePath(kTiny), {.factor = NAN}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(write("/nowhere", {.factor = 2}).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(out_ + "/x/config.json"));
  EXPECT_TRUE(write(SourcePath(kTiny), {.factor = 2}).ok());
  const absl::Status again = write(SourcePath(kTiny), {.factor = 2});
  EXPECT_NE(again.message().find("not empty"), absl::string_view::npos) << again;
}

}  // namespace
}  // namespace tessera
