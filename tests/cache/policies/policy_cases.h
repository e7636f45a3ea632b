// The cases of the policy contract test: policies, prompts, geometries, and made-up statistics.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "cache/policy/policy.h"

namespace tessera::policy_cases {

// Parses `text` and expects success.
std::shared_ptr<const Policy> Parse(absl::string_view text);

// Returns the whole table with a few values each, and all selectors combined with all stores.
std::vector<std::string> AllPolicies();

// Returns a prompt's vision flags (PromptView): {{'t', 5}, {'v', 64}, {'t', 3}} is 5 text tokens,
// 64 tokens of an image, 3 text tokens.
std::vector<uint8_t> Prompt(std::initializer_list<std::pair<char, int>> parts);

// Returns prompts of many shapes, as vision flags (PromptView).
std::vector<std::vector<uint8_t>> Prompts();

inline constexpr KvGeometry kGeometries[] = {{3, 2, 64}, {4, 1, 128}, {3, 4, 32}};

// Makes up the statistics that a policy needs of a prompt: noise, with massive tokens where there
// are peaks. Equal prompts give equal statistics.
class Statistics {
 public:
  Statistics(const PolicyNeeds& needs, const PromptView& prompt, const KvGeometry& geometry);
  const std::vector<LayerStats>& layers() const { return views_; }

 private:
  struct Layer {
    std::vector<float> peaks, medians, residuals, columns;
    std::vector<int32_t> ranks;
    std::vector<double> sums;
  };
  std::vector<Layer> layers_;
  std::vector<LayerStats> views_;
};

// Makes up the attention weight that a row gives a token.
float Attention(int layer, int row, int token);

}  // namespace tessera::policy_cases
