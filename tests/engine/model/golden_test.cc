// The model against Hugging Face: first-step logits and greedy answers of the evaluation set's
// goldens and of tiny_gqa (grouped queries, biases, odd-sized pictures), in float32 there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "cache/sequence_cache.h"
#include "kernels/backend/backend.h"
#include "tests/engine/engine_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Checkpoint;

// Logits of the last prompt token, all rows in one step, outside of any engine.
std::vector<float> FirstStepLogits(Checkpoint& c, const Prompt& prompt) {
  const KvGeometry geometry = c.config.text.kv_geometry();
  Arena arena(64 << 20, geometry);
  Buffer memory = c.model->ops().Allocate(arena.total_bytes());
  SequenceCache cache(&arena);
  const int n = static_cast<int>(prompt.ids.size());
  TESSERA_CHECK(cache.Extend(n));
  Batch batch;
  batch.ids = prompt.ids;
  for (int i = 0; i < n; ++i) batch.positions.push_back(i);
  batch.query_begin = {0, n};
  batch.logit_rows = {n - 1};
  batch.build_layer = [&](int l, Batch::Layer* layer) {
    layer->slots.clear();
    for (int i = 0; i < n; ++i) layer->slots.push_back(cache.SlotOf(l, i));
    layer->pages = cache.runs(l)[0].pages;
    layer->runs = {{Format::kRaw16, 0, n}};
    layer->run_begin = {0, 1};
  };
  std::vector<const PreparedImage*> images;
  for (const auto& span : prompt.images) images.push_back(span.image.get());
  const auto features = c.model->EncodeImages(images);
  for (size_t i = 0; i < images.size(); ++i)
    batch.image_rows.push_back(
        {prompt.images[i].begin, 0, static_cast<int32_t>(features[i]->rows), features[i]});
  c.model->Forward(batch, memory.get());
  const float* logits = c.model->Finish().logits;
  return {logits, logits + c.config.text.vocab};
}

double LargestDifference(const std::vector<float>& logits, const nlohmann::json& top) {
  double worst = 0;
  for (const auto& pair : top)
    worst = std::max(worst, std::abs(logits[pair[0].get<int>()] - pair[1].get<double>()));
  return worst;
}

std::vector<std::string> ImagePaths(const nlohmann::json& names, const std::string& dir) {
  std::vector<std::string> out;
  for (const auto& name : names) out.push_back(dir + "/" + name.get<std::string>());
  return out;
}

EngineOptions SmallEngine() {
  EngineOptions options;
  options.kv_cache_bytes = 256 << 20;
  options.check_integrity = true;
  return options;
}

// Skips, with the reason, the backends that this machine lacks.
class BackendGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto ops = MakeBackend(GetParam() == "cuda_precise" ? "cuda" : GetParam(), {});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
  }
};

TEST_P(BackendGoldenTest, TinyGqaLogitsAndGreedyIds) {
  const std::string dir = testing::SourcePath("tests/golden/tiny_gqa");
  const auto golden = nlohmann::json::parse(std::ifstream(dir + "/golden.json"));
  double worst = 0;
  for (const auto& item : golden["cases"]) {
    Checkpoint c = testing::LoadCheckpoint(dir, GetParam());
    const Prompt prompt = testing::PromptOfIds(c, item["ids"].get<std::vector<int32_t>>(),
                                               ImagePaths(item["images"], dir + "/images"));
    worst =
        std::max(worst, LargestDifference(FirstStepLogits(c, prompt), item["first_step_top20"]));
    const auto expected = item["output_ids"].get<std::vector<int32_t>>();
    Engine engine(std::move(c.model), c.tokenizer, SmallEngine(), nullptr);
    Request request = testing::MakeRequest("x", prompt, static_cast<int>(expected.size()));
    request.stop.ignore_eos = true;
    EXPECT_EQ(testing::Ask(engine, std::move(request)).ids, expected);
  }
  std::printf("tiny_gqa on %s: largest difference of a first-step logit %.5f\n", GetParam().c_str(),
              worst);
  EXPECT_LT(worst, 0.05);
}

INSTANTIATE_TEST_SUITE_P(Backends, BackendGoldenTest,
                         ::testing::Values("reference", "cpu", "cuda", "cuda_precise"),
                         [](const auto& info) { return info.param; });

// All of the demo model's goldens: too slow for the reference.
class DemoGoldenTest : public BackendGoldenTest {};

TEST_P(DemoGoldenTest, LogitsTokensAndGreedyIds) {
  const std::string dir = testing::SourcePath("tests/eval");
  Checkpoint c = testing::LoadCheckpoint(testing::SourcePath("models/demo"), GetParam());
  std::map<std::pair<std::string, std::string>, nlohmann::json> questions;
  for (auto& q : testing::ReadLines(dir + "/questions.jsonl")) questions[{q["set"], q["task"]}] = q;
  const auto golden = testing::ReadLines(dir + "/golden.jsonl");
  double worst = 0;
  std::vector<Prompt> prompts;
  for (const auto& g : golden) {
    prompts.push_back(testing::PromptOfQuestion(c, questions.at({g["set"], g["task"]}), dir));
    EXPECT_EQ(prompts.back().ids, g["input_ids"].get<std::vector<int32_t>>());
    worst = std::max(worst,
                     LargestDifference(FirstStepLogits(c, prompts.back()), g["first_step_top20"]));
  }
  std::printf("demo on %s: largest difference of a first-step logit %.5f over %zu prompts\n",
              GetParam().c_str(), worst, golden.size());
  EXPECT_LT(worst, 0.05);

  Engine engine(std::move(c.model), c.tokenizer, SmallEngine(), nullptr);
  int equal = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    const Answer a = testing::Ask(engine, testing::MakeRequest(std::to_string(i), prompts[i], 8));
    equal += a.ids == golden[i]["output_ids"].get<std::vector<int32_t>>();
  }
  std::printf("demo on %s: %d of %zu greedy outputs equal\n", GetParam().c_str(), equal,
              golden.size());
  EXPECT_GE(equal, static_cast<int>(std::ceil(0.99 * static_cast<double>(golden.size()))));
}

INSTANTIATE_TEST_SUITE_P(Backends, DemoGoldenTest, ::testing::Values("cpu", "cuda", "cuda_precise"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tessera
