#include "tests/cache/policies/policy_cases.h"

#include <map>
#include <random>

#include "cache/policies/registry.h"
#include "gtest/gtest.h"
#include "kernels/host/reference_statistics.h"

namespace tessera::policy_cases {
namespace {

const std::map<std::string, std::vector<std::string>>& Variants() {
  static const auto* variants = new std::map<std::string, std::vector<std::string>>{
      {"none", {"none"}},
      {"window", {"window", "window(sinks=4, recent=64)", "window(sinks=0, recent=1)"}},
      {"random", {"random", "random(tokens=40, seed=3, scope=visual)", "random(keep=0)"}},
      {"flashcache",
       {"flashcache", "flashcache(keep=1)", "flashcache(keep=0, budget=uniform)",
        "flashcache(tokens=40, gamma=0.1, scope=visual, segment=image, sinks=4, recent=20)"}},
      {"snapkv",
       {"snapkv", "snapkv(tokens=48, window=64)", "snapkv(keep=0.5, pool=max, kernel=7)"}},
      {"h2o",
       {"h2o", "h2o(keep=0)", "h2o(tokens=70, recent=0.1)", "h2o(bytes=200000, recent=1)",
        "h2o(keep=1, recent=0)", "h2o(tokens=1)"}},
      {"rtn",
       {"rtn", "rtn(bits=2, window=32)", "rtn(bits=8, window=17)", "rtn(bits=1)",
        "rtn(bits=4, group=64)"}},
      {"hadamard", {"hadamard", "hadamard(bits=1, window=64)", "hadamard(group=32)"}},
      {"kivi",
       {"kivi", "kivi(bits=4, residual=0)", "kivi(bits=1, residual=33)", "kivi(group=head)"}},
      {"akvq",
       {"akvq", "akvq(window=32, low=1, text=8, tsa=1, pivots=40, pivot_rule=topk_entries)",
        "akvq(window=0, pivot_rule=threshold)", "akvq(group=32, pivots=0)",
        "akvq(window=16, clip=0.6, offset=integer)"}},
      {"calibquant", {"calibquant", "calibquant(bits=2, quantile=0.02)", "calibquant(bits=4)"}},
  };
  return *variants;
}

}  // namespace

std::shared_ptr<const Policy> Parse(absl::string_view text) {
  auto policy = ParsePolicy(text);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *policy;
}

std::vector<std::string> AllPolicies() {
  std::vector<std::string> all, selectors, stores;
  for (const PolicyInfo& info : PolicyTable()) {
    EXPECT_TRUE(Variants().contains(info.name)) << info.name << " is not under contract";
    for (const std::string& text : Variants().at(info.name)) {
      all.push_back(text);
      if (info.role == PolicyRole::kSelector) selectors.push_back(text);
      if (info.role == PolicyRole::kStore) stores.push_back(text);
    }
  }
  for (const std::string& selector : selectors) {
    for (const std::string& store : stores) all.push_back(selector + "+" + store);
  }
  return all;
}

std::vector<uint8_t> Prompt(std::initializer_list<std::pair<char, int>> parts) {
  std::vector<uint8_t> vision;
  uint8_t image = 0;
  for (const auto& [kind, tokens] : parts) {
    vision.insert(vision.end(), tokens, kind == 'v' ? ++image : 0);
  }
  return vision;
}

std::vector<std::vector<uint8_t>> Prompts() {
  return {
      {},
      Prompt({{'t', 1}}),
      Prompt({{'t', 5}}),
      Prompt({{'v', 64}}),
      Prompt({{'t', 128}}),
      Prompt({{'t', 301}}),
      Prompt({{'v', 577}}),
      Prompt({{'t', 35}, {'v', 576}, {'t', 20}}),
      Prompt({{'t', 7}, {'v', 64}, {'t', 3}, {'v', 64}, {'t', 1}, {'v', 64}, {'t', 30}}),
      Prompt({{'t', 70}, {'v', 577}, {'t', 11}, {'v', 577}, {'t', 65}}),
      Prompt({{'v', 64}, {'v', 33}, {'v', 1}, {'t', 9}, {'v', 40}}),
  };
}

Statistics::Statistics(const PolicyNeeds& needs, const PromptView& prompt,
                       const KvGeometry& geometry) {
  std::mt19937 rng(static_cast<unsigned>(prompt.tokens()));
  std::uniform_real_distribution<float> noise(0, 1);
  const int width = needs.residual_peaks;
  const size_t n = prompt.tokens();
  for (int layer = 0; layer < geometry.layers; ++layer) {
    Layer& l = layers_.emplace_back();
    for (size_t t = 0; t < n; ++t) {
      const float scale = rng() % 9 == 0 ? 2000.0f : 1.0f;
      float peak = scale * (1 + noise(rng));
      for (int i = 0; i < width; ++i, peak *= noise(rng)) l.peaks.push_back(peak);
      if (needs.residual_medians) l.medians.push_back(noise(rng));
      if (needs.attention_rows > 0) l.columns.push_back(noise(rng));
      if (!needs.low_pass) continue;
      for (int part = 0; part < 2; ++part) l.residuals.push_back(noise(rng) * scale);
      for (int part = 0; part < 2; ++part) l.residuals.push_back(scale * 2);
    }
    if (!needs.low_pass) continue;
    l.ranks.resize(n);
    l.sums.resize(8);
    ReferenceRankTokens(l.residuals.data(), prompt.vision.data(), 1, prompt.tokens(),
                        l.ranks.data(), l.sums.data());
  }
  if (needs.any()) {
    for (const Layer& l : layers_) {
      views_.push_back({width, l.peaks, l.medians, {l.residuals, l.ranks, l.sums}, l.columns});
    }
  }
}

float Attention(int layer, int row, int token) {
  const auto seed = static_cast<uint32_t>((layer * 5003 + row) * 4001 + token);
  return static_cast<float>((seed * 2654435761u ^ seed >> 7) * 2246822519u >> 8) * 0x1p-24f;
}

}  // namespace tessera::policy_cases
