// Prefix cache: finds the KV pages of a prompt's beginning that an earlier request already
// computed.
//
// A block is 16 tokens: one RAW16 page per layer. Its key is SHA-256 over the parent block's key,
// the block's token ids and, for every image token, the image's digest and the token's offset
// inside the image. The first block's parent is SHA-256 of (model id, cache salt), so tenants with
// different salts never share pages. Tokens are not compared again: the full hash is the key.
//
// The cache holds one reference to each of its pages. A block is *pinned* (vLLM: ref_cnt > 0) while
// another holder shares one of its pages or a page of a block below it; the arena reports this
// through PageWatcher. All other blocks are *idle* and can be evicted. Eviction takes children
// before parents and the least recently used first. A block was last used when it was last unpinned
// or last found. The idle list keeps this order, parents newer than their children. Its tail can
// therefore always be evicted next, and no operation visits pinned blocks.
//
// Threads: one thread (the engine's). Ownership: the arena must outlive the cache and can have no
// other watcher.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/digest.h"
#include "cache/pages/arena.h"

namespace tessera {

constexpr int kBlockTokens = PageTokens(Format::kRaw16);

// A prompt token as the keys see it. `image` is null for text. For an image token it points to the
// image's digest, and `image_offset` (not negative) is the token's index inside the image.
struct PrefixToken {
  int32_t id = 0;
  const Digest* image = nullptr;
  int32_t image_offset = 0;
};
// Returns the parent key of a prompt's first block.
Digest PrefixRoot(absl::string_view model, absl::string_view salt);
// Returns a prompt's keys: one for each full block. A part-filled last block has none.
std::vector<Digest> BlockKeys(const Digest& root, absl::Span<const PrefixToken> tokens);

class PrefixCache : private PageWatcher {
 public:
  explicit PrefixCache(Arena* arena);
  ~PrefixCache() override;
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The longest chain of known blocks at the beginning of a prompt.
  struct Match {
    int blocks = 0;
    std::vector<std::vector<PageId>> pages;  // [layer][block]
  };
  // Returns the longest known chain of `keys`, at most `max_blocks` blocks (a prompt must compute
  // at least one token itself), and marks its blocks as just used. Takes no reference for the
  // caller, who must adopt the pages before any other call can evict them.
  Match Find(absl::Span<const Digest> keys, int max_blocks);
  // Returns the length of the chain that Find would return, and changes no order: for admission.
  // Stores in `*idle_pages` (may be null) by how many pages adopting that chain would reduce
  // reclaimable_pages().
  int Peek(absl::Span<const Digest> keys, int max_blocks, int64_t* idle_pages = nullptr) const;
  // Registers block `index` of a chain. `pages` has one full page per layer, which the caller also
  // holds. A key that is already known keeps its first pages. Returns false and changes nothing
  // when the parent block is not known (any more); then the rest of the chain cannot be registered
  // either.
  bool Insert(absl::Span<const Digest> keys, int index, absl::Span<const PageId> pages);

  // Evicts idle blocks until at least `pages` pages are free or no idle block is left. Returns the
  // number of pages freed.
  int64_t Reclaim(int64_t pages);
  // Returns exactly how many pages Reclaim can free now.
  int64_t reclaimable_pages() const { return idle_blocks_ * layers_; }
  int64_t blocks() const { return static_cast<int64_t>(map_.size()); }
  void Clear();                          // forgets all blocks; sequences keep their pages
  std::vector<PageId> AllPages() const;  // that this cache holds a reference to, for audits
  absl::Status CheckIntegrity() const;

 private:
  struct Block {
    Digest key;
    int32_t parent = -1;
    int32_t children = 0;
    int32_t pinned_children = 0;
    int32_t shared_pages = 0;        // pages of this block with another holder
    int32_t newer = -1, older = -1;  // links of the idle list
    bool pinned() const { return pinned_children > 0 || shared_pages > 0; }
  };
  void OnSharedChanged(uint32_t tag, bool shared) override;  // tag: block number
  // Moves `block`, which has just become pinned or idle, out of or into the idle list and updates
  // its ancestors.
  void PinnedChanged(int32_t block);
  void PushNewest(int32_t block);
  void Unlink(int32_t block);
  void Drop(int32_t block);
  absl::Status CheckBlock(int32_t block) const;
  PageId* PagesOf(int32_t block) { return &pages_[int64_t{block} * layers_]; }
  const PageId* PagesOf(int32_t block) const { return &pages_[int64_t{block} * layers_]; }

  Arena* arena_;
  int64_t layers_;
  std::unordered_map<Digest, int32_t, DigestHash> map_;
  std::vector<Block> blocks_;         // by block number
  std::vector<PageId> pages_;         // [block number][layer]
  std::vector<int32_t> free_blocks_;  // unused block numbers
  int32_t newest_ = -1, oldest_ = -1;
  int64_t idle_blocks_ = 0;
};

}  // namespace tessera
