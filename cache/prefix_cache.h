// Finds the pages of a prompt's beginning that an earlier request already computed.
//
// A block is 16 tokens (one RAW16 page per layer). Its key is SHA-256 over (parent key, the block's
// token ids, and for every image token the image's digest and offset inside the image); the first
// parent is SHA-256 of (model id, cache salt), so tenants with different salts never meet. Token
// equality is not re-checked: the hash is full width.
//
// The index holds one reference to each page. A block is *pinned* while one of its pages, or of a
// block below it, is shared with somebody else (the arena tells, by PageWatcher); the others are
// *idle*. Exactly the idle blocks are reclaimable: every one of them, children before parents,
// least recently used first, where a block counts as used until it is last unpinned or found. They
// stand in a list in that order, parents before their children, so that its tail can always go next
// and no operation ever looks at pinned blocks. Threads: one thread (the engine's). The arena must
// outlive the index and has no other watcher.
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

// A prompt token as the keys see it. `image` is null for text; for image tokens it points to the
// image's digest and `image_offset` (not negative) is the token's index inside the image.
struct PrefixToken {
  int32_t id = 0;
  const Digest* image = nullptr;
  int32_t image_offset = 0;
};
Digest PrefixRoot(absl::string_view model, absl::string_view salt);
// A prompt's keys, one per full block.
std::vector<Digest> BlockKeys(const Digest& root, absl::Span<const PrefixToken> tokens);

class PrefixCache : private PageWatcher {
 public:
  explicit PrefixCache(Arena* arena);
  ~PrefixCache() override;
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The longest known chain of `keys`: pages[layer][block], not referenced for the caller (adopt
  // before anything else can reclaim). `max_blocks` bounds it (at least one token must be
  // computed).
  struct Match {
    int blocks = 0;
    std::vector<std::vector<PageId>> pages;  // [layer][block]
  };
  Match Find(absl::Span<const Digest> keys, int max_blocks);
  // As Find, but counts only: for admission, changes no order. `*idle_pages` (may be null) is how
  // many pages adopting that chain would take out of reclaimable_pages().
  int Peek(absl::Span<const Digest> keys, int max_blocks, int64_t* idle_pages = nullptr) const;
  // Registers block `index` of a chain: `pages` has one full page per layer, which the caller holds
  // too. A key already known keeps its first pages. False, and nothing changed, when the parent is
  // not known (any more): then the rest of the chain cannot be registered either.
  bool Insert(absl::Span<const Digest> keys, int index, absl::Span<const PageId> pages);

  // Frees whole idle blocks until at least `pages` pages are free or none is left; returns how many
  // were freed.
  int64_t Reclaim(int64_t pages);
  int64_t reclaimable_pages() const { return idle_blocks_ * layers_; }  // exact
  int64_t blocks() const { return static_cast<int64_t>(map_.size()); }
  void Clear();                          // forgets all; pages live on where sequences hold them
  std::vector<PageId> AllPages() const;  // held by the index, for audits
  absl::Status CheckIntegrity() const;

 private:
  struct Block {
    Digest key;
    int32_t parent = -1;
    int32_t children = 0;
    int32_t pinned_children = 0;
    int32_t shared_pages = 0;        // of its own
    int32_t newer = -1, older = -1;  // links of the idle list
    bool pinned() const { return pinned_children > 0 || shared_pages > 0; }
  };
  void OnSharedChanged(uint32_t tag, bool shared) override;  // tag: block number
  // After `block` changed between pinned and idle: moves it out of or into the list and tells its
  // ancestors.
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
  std::vector<int32_t> free_blocks_;  // numbers not in use
  int32_t newest_ = -1, oldest_ = -1;
  int64_t idle_blocks_ = 0;
};

}  // namespace tessera
