#include "engine/runtime/sequence.h"

#include <algorithm>

namespace tessera {

std::vector<uint8_t> VisionFlags(const Prompt& prompt) {
  std::vector<uint8_t> flags(prompt.ids.size());
  for (const Prompt::ImageSpan& span : prompt.images) {
    const int64_t rows = prompt.image_tokens / static_cast<int64_t>(prompt.images.size());
    const auto image = static_cast<int64_t>(&span - prompt.images.data());
    std::fill_n(flags.begin() + span.begin, rows, static_cast<uint8_t>(1 + image % 255));
  }
  return flags;
}

std::vector<PrefixToken> PrefixTokens(const Prompt& prompt, const std::vector<int32_t>& tokens,
                                      int first, int last) {
  std::vector<PrefixToken> out(last - first);
  for (int i = first; i < last; ++i) out[i - first].id = tokens[i];
  if (prompt.images.empty()) return out;
  const int per_image = prompt.image_tokens / static_cast<int>(prompt.images.size());
  for (const Prompt::ImageSpan& span : prompt.images) {
    for (int i = std::max(first, span.begin); i < std::min(last, span.begin + per_image); ++i) {
      out[i - first].image = &span.image->digest;
      out[i - first].image_offset = i - span.begin;
    }
  }
  return out;
}

Sequence::Sequence(Arena* arena, const Prompt& prompt, const Policy& policy, int priority,
                   int64_t arrival)
    : prompt(&prompt),
      policy(&policy),
      needs(policy.needs()),
      vision(VisionFlags(prompt)),
      priority(priority),
      arrival(arrival),
      tokens(prompt.ids),
      prompt_tokens(static_cast<int>(prompt.ids.size())),
      commit_tokens(prompt_tokens),
      cache(arena, policy.compresses()) {}

int Sequence::NextChunk() const {
  int chunk = to_compute();
  if (chunk <= 1 || !policy->compresses()) return chunk;
  if (!committed) return commit_tokens - computed;
  for (int layer = 0; layer < cache.layers(); ++layer)
    chunk = std::min(chunk, cache.TokensToExit(layer, policy->Layer(layer)));
  if (const int64_t limit = token_limit(); limit > 0) {
    chunk = std::min(chunk, static_cast<int>(limit + kEvictTokens - cache.stored(0)));
  }
  return chunk;
}

const std::vector<Digest>& Sequence::BlockKeys() {
  const int known = static_cast<int>(block_keys_.size());
  const int full = static_cast<int>(tokens.size()) / kBlockTokens;
  if (full > known) {
    const Digest& parent = known == 0 ? prefix_root : block_keys_.back();
    const std::vector<PrefixToken> fresh =
        PrefixTokens(*prompt, tokens, known * kBlockTokens, full * kBlockTokens);
    for (const Digest& key : tessera::BlockKeys(parent, fresh)) block_keys_.push_back(key);
  }
  return block_keys_;
}

}  // namespace tessera
