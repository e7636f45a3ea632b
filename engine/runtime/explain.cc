#include "engine/runtime/explain.h"

namespace tessera {

Explanation Explain(const Sequence& sequence, const Arena& arena) {
  const SequenceCache& cache = sequence.cache;
  Explanation out;
  out.tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() + cache.length());
  out.prompt_tokens = sequence.prompt_tokens;
  out.commit_tokens = sequence.policy->compresses() ? sequence.commit_tokens : 0;
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    if (!HoldsTokens(format)) continue;
    out.bytes_per_token[f] = static_cast<double>(arena.page_bytes(format)) / PageTokens(format);
  }
  out.score_name = sequence.scores.name;
  const Prompt& prompt = *sequence.prompt;
  for (const Prompt::ImageSpan& image : prompt.images) {
    out.images.push_back(
        {image.begin, prompt.image_tokens / static_cast<int32_t>(prompt.images.size())});
  }
  for (int l = 0; l < cache.layers(); ++l) {
    Explanation::Layer& layer = out.layers.emplace_back();
    if (!sequence.scores.layers.empty()) layer.scores = sequence.scores.layers[l];
    layer.stored.resize(cache.length(), Explanation::kEvicted);
    for (const Run& run : cache.runs(l)) {
      layer.bytes += static_cast<int64_t>(run.pages.size()) * arena.page_bytes(run.format);
      if (run.header != kNoPage) layer.bytes += arena.page_bytes(Format::kHeader);
      for (int32_t i = 0; i < run.tokens; ++i) {
        layer.stored[run.Position(i)] = static_cast<uint8_t>(1 + static_cast<int>(run.format));
      }
    }
  }
  return out;
}

}  // namespace tessera
