// A token as the engine gets one from a row of logits: the sampler's edit, then its draw, on the
// host.
#pragma once

#include <vector>

#include "engine/sampling/sampler.h"
#include "kernels/host/logits.h"
#include "kernels/host/sample.h"

namespace tessera::testing {

// `logits` become the edited ones. `awaited`: the last token, which the sampler was not told yet;
// -1: it was.
inline int32_t Sampled(const Sampler& sampler, std::vector<float>* logits, int index,
                       const std::vector<int32_t>& banned = {}, bool ban_ends = false,
                       int32_t awaited = -1) {
  const auto vocab = static_cast<int64_t>(logits->size());
  std::vector<uint8_t> mask(vocab);
  for (const int32_t id : banned) {
    if (id >= 0 && id < vocab) mask[id] = 1;
  }
  LogitEdits edits;
  sampler.AddEdit(0, ban_ends, awaited >= 0 ? 0 : -1, &edits);
  for (const LogitEdit& edit : edits.rows) {
    EditRow(edit, edits.biases.data(), edits.counts.data(), &awaited, logits->data(), vocab);
  }
  const SampleRule rule = sampler.RuleAt(index);
  return SampleRow(logits->data(), vocab, mask.data(), &rule);
}

}  // namespace tessera::testing
