#include "engine/runtime/kv_cache_manager.h"

#include <algorithm>
#include <vector>

namespace tessera {

bool KvCacheManager::Allocate(Sequence* sequence, int tokens) {
  while (!sequence->cache.Extend(tokens)) {
    const int64_t missing =
        sequence->cache.PagesToExtend(tokens) - arena_.available_pages(Format::kRaw16);
    if (!Evict(std::max<int64_t>(missing, 1))) return false;
  }
  sequence->peak_bytes = std::max(sequence->peak_bytes, sequence->cache.bytes());
  return true;
}

int64_t KvCacheManager::available_pages() const {
  return arena_.available_pages(Format::kRaw16) + prefix_.reclaimable_pages();
}

KvCacheManager::PrefixHit KvCacheManager::AdoptPrefix(Sequence* sequence) {
  if (!sequence->use_prefix) return {};
  // At least one token must run, or there would be no logits. Tokens behind the commit point are
  // computed over compressed pages, which are not cached. A hit skips the layers, so it ends where
  // the policy's statistics begin.
  const int first_to_run = sequence->needs.FirstToRun(sequence->view());
  const int max_blocks = (sequence->plain_tokens() - 1) / kBlockTokens;
  const PrefixCache::Match match =
      prefix_.Find(sequence->BlockKeys(), std::min(max_blocks, first_to_run / kBlockTokens));
  const int unused_blocks = prefix_.Peek(sequence->BlockKeys(), max_blocks) - match.blocks;
  if (match.blocks > 0) sequence->cache.AdoptPrefix(match.pages, match.blocks * kBlockTokens);
  return {match.blocks * kBlockTokens, unused_blocks * kBlockTokens};
}

void KvCacheManager::CacheBlocks(Sequence* s) {
  if (!s->use_prefix || s->committed) return;
  const int full = std::min(s->computed, s->plain_tokens()) / kBlockTokens;
  const std::vector<Digest>& keys = s->BlockKeys();
  for (; s->registered_blocks < full; ++s->registered_blocks) {
    std::vector<PageId> pages;
    for (int layer = 0; layer < s->cache.layers(); ++layer) {
      pages.push_back(s->cache.SlotOf(layer, s->registered_blocks * kBlockTokens).page);
    }
    // Refused if the parent block was evicted meanwhile (another sequence's copy).
    if (!prefix_.Insert(keys, s->registered_blocks, pages)) break;
  }
}

void KvCacheManager::Describe(EngineLoad* load) const {
  load->kv_bytes_total = arena_.total_bytes();
  load->kv_bytes_reclaimable =
      prefix_.reclaimable_pages() * PageBytes(Format::kRaw16, arena_.geometry());
  load->kv_bytes_used = arena_.used_bytes() - load->kv_bytes_reclaimable;
  load->kv_bytes_stranded = arena_.slab_used_bytes() - arena_.used_bytes();
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    load->pages_by_format[f] = arena_.pages_in_use(format);
    load->bytes_by_format[f] = load->pages_by_format[f] * arena_.page_bytes(format);
  }
  load->prefix_blocks = prefix_.blocks();
}

}  // namespace tessera
