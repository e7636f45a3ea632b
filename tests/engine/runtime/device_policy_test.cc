// Policies on a GPU: the same questions, compressed before the question is read, answered by the
// device and by the CPU backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "base/base.h"
#include "cache/policies/registry.h"
#include "kernels/backend/backend.h"
#include "tests/engine/engine_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Checkpoint;
using testing::SourcePath;

class DevicePolicyTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto ops = MakeBackend("cuda", {});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
  }
};

// Whole answers with the candidates of each step.
std::vector<Event> Answers(const std::string& device, const std::string& policy_text) {
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"), device);
  const auto questions = testing::ReadLines(SourcePath("tests/eval/questions.jsonl"));
  std::vector<Request> requests;
  for (size_t i = 5; i < questions.size(); i += 17) {
    Request r = testing::MakeRequest(
        std::to_string(i), testing::PromptOfQuestion(c, questions[i], SourcePath("tests/eval")), 8);
    const auto policy = ParsePolicy(policy_text);
    TESSERA_CHECK(policy.ok());
    r.policy = *policy;
    r.commit_tokens = r.prompt.images.back().begin +
                      r.prompt.image_tokens / static_cast<int>(r.prompt.images.size());
    r.top_logprobs = 2;
    r.bypass_prefix = true;
    requests.push_back(std::move(r));
  }
  EngineOptions options;
  options.kv_cache_bytes = 256 << 20;
  options.check_integrity = true;
  options.async_scheduling =
      true;  // on the CPU too: a row behind an unforeseen end is memory as well
  Engine engine(std::move(c.model), c.tokenizer, options, nullptr);
  std::vector<Event> all;
  for (Request& r : requests) {
    testing::Reader reader;
    const absl::Status status = engine.Submit(std::move(r), reader.output_queue(), nullptr);
    if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
    Event whole;
    for (bool more = true; more;) {
      testing::Answer answer;
      more = reader.ReadOne(&answer);
      whole.ids.insert(whole.ids.end(), answer.last.ids.begin(), answer.last.ids.end());
      whole.logprobs.insert(whole.logprobs.end(), answer.last.logprobs.begin(),
                            answer.last.logprobs.end());
      whole.status = answer.last.status;
      whole.usage = answer.last.usage;
    }
    all.push_back(std::move(whole));
  }
  return all;
}

// At the first token that differs, the CPU's two best logits are close. The backends' usual
// difference, added to both, can exchange them.
TEST_P(DevicePolicyTest, AnswersAgreeWithTheCpus) {
  const std::vector<Event> cpu = Answers("cpu", GetParam());
  for (const std::string device : {"cuda", "cuda_precise"}) {
    // One bit without clipping errs by more than the signal: it turns any rounding of the prefill
    // into another answer, and only equal roundings can be compared.
    if (device == "cuda" && absl::StrContains(GetParam(), "bits=1")) continue;
    const std::vector<Event> mine = Answers(device, GetParam());
    ASSERT_EQ(mine.size(), cpu.size());
    double largest = 0, widest = 0;
    int equal = 0;
    for (size_t i = 0; i < cpu.size(); ++i) {
      ASSERT_TRUE(mine[i].status.ok()) << mine[i].status;
      EXPECT_EQ(mine[i].usage.kv_bytes_peak, cpu[i].usage.kv_bytes_peak);
      equal += mine[i].ids == cpu[i].ids;
      const size_t steps = std::min(mine[i].logprobs.size(), cpu[i].logprobs.size());
      for (size_t s = 0; s < steps; ++s) {
        const TokenLogprob &a = mine[i].logprobs[s], &b = cpu[i].logprobs[s];
        if (a.id != b.id) {
          widest = std::max<double>(widest, b.top[0].second - b.top[1].second);
          break;
        }
        largest = std::max<double>(largest, std::fabs(a.logprob - b.logprob));
      }
    }
    std::printf(
        "%s on %s: %d of %zu answers equal the CPU's; log-probabilities differ by %.4f at "
        "most, margins where answers part by %.4f\n",
        GetParam().c_str(), device.c_str(), equal, cpu.size(), largest, widest);
    EXPECT_LE(widest, 2 * largest);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Policies, DevicePolicyTest,
    ::testing::Values("none", "rtn(bits=8)", "rtn(bits=4, window=32)",
                      "hadamard(bits=2, window=32)", "kivi(bits=2, group=head, residual=32)",
                      "akvq(window=32)", "kivi(bits=2, residual=32)", "rtn(bits=4, group=64)",
                      "flashcache(keep=0.5)", "snapkv(keep=0.5)", "h2o(keep=0.5)",
                      "calibquant(bits=2)", "window(sinks=4, recent=64)+rtn(bits=1)"));

}  // namespace
}  // namespace tessera
