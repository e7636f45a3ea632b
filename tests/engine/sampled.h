// Samples a token on the host as the engine's backends do: the sampler's edit, then its rule.
#pragma once

#include <vector>

#include "engine/sampling/sampler.h"
#include "kernels/host/logits.h"
#include "kernels/host/sample.h"

namespace tessera::testing {

// Samples output token `index` and leaves the edited logits in `logits`. `pending`: the newest
// output token if the sampler has not counted it yet (asynchronous scheduling), else -1.
inline int32_t Sampled(const Sampler& sampler, std::vector<float>* logits, int index,
                       const std::vector<int32_t>& banned = {}, bool ban_stop_ids = false,
                       int32_t pending = -1) {
  const auto vocab = static_cast<int64_t>(logits->size());
  std::vector<uint8_t> mask(vocab);
  for (const int32_t id : banned) {
    if (id >= 0 && id < vocab) mask[id] = 1;
  }
  LogitEdits edits;
  sampler.AddEdit(0, ban_stop_ids, pending >= 0 ? 0 : -1, &edits);
  for (const LogitEdit& edit : edits.rows) {
    EditRow(edit, edits.biases.data(), edits.counts.data(), &pending, logits->data(), vocab);
  }
  const SampleRule rule = sampler.RuleAt(index);
  return SampleRow(logits->data(), vocab, mask.data(), &rule);
}

}  // namespace tessera::testing
