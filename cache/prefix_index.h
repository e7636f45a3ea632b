// Finds the pages of a prompt's beginning that an earlier request already computed.
//
// A block is 16 tokens (one RAW16 page per layer). Its key is SHA-256 over (parent key, the block's
// token ids, and for every image token the image's digest and offset inside the image); the first
// parent is SHA-256 of (model id, cache salt), so tenants with different salts never meet. Token
// equality is not re-checked: the hash is full width.
// The index holds one reference to each page. Pages that only the index holds are reclaimable,
// least recently used first and children before parents.
// Threads: one thread (the engine's).
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/arena.h"
#include "kernels/digest.h"

namespace tessera {

constexpr int kBlockTokens = 16;

// A prompt's keys, one per full block. `image_digest_of[i]` is null for text tokens; for image
// token i it points to its image's digest and `image_offset[i]` is its index inside the image.
struct PrefixToken {
  int32_t id = 0;
  const Digest* image = nullptr;
  int32_t image_offset = 0;
};
Digest PrefixRoot(absl::string_view model, absl::string_view salt);
std::vector<Digest> BlockKeys(const Digest& root, absl::Span<const PrefixToken> tokens);

class PrefixIndex {
 public:
  explicit PrefixIndex(Arena* arena) : arena_(arena) {}
  ~PrefixIndex() { Clear(); }

  // The longest known chain of `keys`: pages[layer][block], not referenced for the caller (adopt
  // before anything else can reclaim). `max_blocks` bounds it (at least one token must be
  // computed).
  struct Match {
    int blocks = 0;
    std::vector<std::vector<PageId>> pages;  // [layer][block]
  };
  Match Find(absl::Span<const Digest> keys, int max_blocks);
  // As Find, but counts only: for admission, changes no order.
  int Peek(absl::Span<const Digest> keys, int max_blocks) const;
  // Registers block `index` of a chain (its parent must be known or index 0). `pages` has one full
  // page per layer; a key already known keeps its first pages.
  void Insert(absl::Span<const Digest> keys, int index, absl::Span<const PageId> pages);

  // Frees up to `pages` reclaimable pages; returns how many were freed.
  int64_t Reclaim(int64_t pages);
  int64_t reclaimable_pages() const;
  int64_t blocks() const { return static_cast<int64_t>(map_.size()); }
  void Clear();
  absl::Status CheckIntegrity() const;

 private:
  struct Block {
    Digest key;
    Digest parent;
    int children = 0;
    bool has_parent = false;
    std::vector<PageId> pages;  // one per layer
  };
  using Order = std::list<Block>;
  Arena* arena_;
  Order order_;  // most recently used first; a parent stands before its children's last use
  std::unordered_map<Digest, Order::iterator, DigestHash> map_;
};

}  // namespace tessera
