#include "cache/prefix_cache.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {

Digest PrefixRoot(absl::string_view model, absl::string_view salt) {
  return Hasher().AddString("tessera prefix").AddString(model).AddString(salt).Finish();
}

std::vector<Digest> BlockKeys(const Digest& root, absl::Span<const PrefixToken> tokens) {
  std::vector<Digest> keys;
  keys.reserve(tokens.size() / kBlockTokens);
  // Each token contributes its id, then -1 for text, or the offset and the image's digest. The
  // second number tells whether a digest follows, so two different blocks never give the same
  // bytes.
  constexpr size_t kMaxToken = 2 * sizeof(int32_t) + sizeof(Digest);
  uint8_t buffer[sizeof(Digest) + kBlockTokens * kMaxToken];
  const Digest* parent = &root;
  for (size_t begin = 0; begin + kBlockTokens <= tokens.size(); begin += kBlockTokens) {
    uint8_t* out = buffer;
    const auto append = [&out](const void* data, size_t bytes) {
      std::memcpy(out, data, bytes);
      out += bytes;
    };
    append(parent->data(), parent->size());
    for (const PrefixToken& token : tokens.subspan(begin, kBlockTokens)) {
      TESSERA_CHECK(token.image == nullptr || token.image_offset >= 0);
      const int32_t offset = token.image == nullptr ? -1 : token.image_offset;
      append(&token.id, sizeof token.id);
      append(&offset, sizeof offset);
      if (token.image != nullptr) append(token.image->data(), token.image->size());
    }
    keys.push_back(Hasher().Add(buffer, out - buffer).Finish());
    parent = &keys.back();
  }
  return keys;
}

PrefixCache::PrefixCache(Arena* arena) : arena_(arena), layers_(arena->geometry().layers) {
  arena_->SetWatcher(this);
}

PrefixCache::~PrefixCache() {
  Clear();
  arena_->SetWatcher(nullptr);
}

PrefixCache::Match PrefixCache::Find(absl::Span<const Digest> keys, int max_blocks) {
  Match match;
  std::vector<int32_t> chain;
  for (const Digest& key : keys.subspan(0, std::max(max_blocks, 0))) {
    const auto it = map_.find(key);
    if (it == map_.end()) break;
    chain.push_back(it->second);
  }
  match.blocks = static_cast<int>(chain.size());
  match.pages.resize(layers_);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    match.pages[layer].reserve(chain.size());
    for (int32_t block : chain) match.pages[layer].push_back(PagesOf(block)[layer]);
  }
  // Move the deepest block first, so that parents end up newer than their children. All ancestors
  // of a pinned block are pinned too.
  for (size_t i = chain.size(); i-- > 0 && !blocks_[chain[i]].pinned();) {
    Unlink(chain[i]);
    PushNewest(chain[i]);
  }
  return match;
}

int PrefixCache::Peek(absl::Span<const Digest> keys, int max_blocks, int64_t* idle_pages) const {
  int blocks = 0;
  int64_t idle = 0;
  for (const Digest& key : keys.subspan(0, std::max(max_blocks, 0))) {
    const auto it = map_.find(key);
    if (it == map_.end()) break;
    ++blocks;
    if (!blocks_[it->second].pinned()) idle += layers_;
  }
  if (idle_pages != nullptr) *idle_pages = idle;
  return blocks;
}

bool PrefixCache::Insert(absl::Span<const Digest> keys, int index, absl::Span<const PageId> pages) {
  TESSERA_CHECK(index >= 0 && index < static_cast<int>(keys.size()));
  TESSERA_CHECK(static_cast<int64_t>(pages.size()) == layers_);
  if (map_.contains(keys[index])) return true;
  int32_t parent = -1;
  if (index > 0) {
    const auto it = map_.find(keys[index - 1]);
    if (it == map_.end()) return false;
    parent = it->second;
  }
  int32_t number;
  if (free_blocks_.empty()) {
    number = static_cast<int32_t>(blocks_.size());
    blocks_.emplace_back();
    pages_.resize(pages_.size() + layers_);
  } else {
    number = free_blocks_.back();
    free_blocks_.pop_back();
  }
  map_.emplace(keys[index], number);
  Block& block = blocks_[number];
  block = Block();
  block.key = keys[index];
  block.parent = parent;
  // The caller holds the pages as well, so the block starts pinned and outside the idle list.
  block.shared_pages = static_cast<int32_t>(layers_);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    TESSERA_CHECK(arena_->FormatOf(pages[layer]) == Format::kRaw16);
    arena_->Ref(pages[layer]);
    arena_->Watch(pages[layer], static_cast<uint32_t>(number));
    PagesOf(number)[layer] = pages[layer];
  }
  if (parent >= 0) {
    Block& above = blocks_[parent];
    ++above.children;
    const bool was_pinned = above.pinned();
    ++above.pinned_children;
    if (!was_pinned) PinnedChanged(parent);
  }
  return true;
}

void PrefixCache::OnSharedChanged(uint32_t tag, bool shared) {
  Block& block = blocks_[tag];
  const bool was_pinned = block.pinned();
  block.shared_pages += shared ? 1 : -1;
  if (block.pinned() != was_pinned) PinnedChanged(static_cast<int32_t>(tag));
}

void PrefixCache::PinnedChanged(int32_t number) {
  for (;;) {
    const bool pinned = blocks_[number].pinned();
    if (pinned) {
      Unlink(number);
    } else {
      PushNewest(number);
    }
    const int32_t parent = blocks_[number].parent;
    if (parent < 0) return;
    Block& above = blocks_[parent];
    const bool was_pinned = above.pinned();
    above.pinned_children += pinned ? 1 : -1;
    if (above.pinned() == was_pinned) return;
    number = parent;
  }
}

void PrefixCache::PushNewest(int32_t number) {
  Block& block = blocks_[number];
  block.newer = -1;
  block.older = newest_;
  (newest_ >= 0 ? blocks_[newest_].newer : oldest_) = number;
  newest_ = number;
  ++idle_blocks_;
}

void PrefixCache::Unlink(int32_t number) {
  Block& block = blocks_[number];
  (block.newer >= 0 ? blocks_[block.newer].older : newest_) = block.older;
  (block.older >= 0 ? blocks_[block.older].newer : oldest_) = block.newer;
  block.newer = block.older = -1;
  --idle_blocks_;
}

void PrefixCache::Drop(int32_t number) {
  Block& block = blocks_[number];
  TESSERA_CHECK(block.children == 0 && !block.pinned());
  Unlink(number);
  if (block.parent >= 0) --blocks_[block.parent].children;
  map_.erase(block.key);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    arena_->Unwatch(PagesOf(number)[layer]);
    arena_->Unref(PagesOf(number)[layer]);
  }
  free_blocks_.push_back(number);
}

int64_t PrefixCache::Reclaim(int64_t pages) {
  int64_t freed = 0;
  for (; freed < pages && oldest_ >= 0; freed += layers_) Drop(oldest_);
  return freed;
}

void PrefixCache::Clear() {
  for (PageId page : AllPages()) {
    arena_->Unwatch(page);
    arena_->Unref(page);
  }
  map_.clear();
  blocks_.clear();
  pages_.clear();
  free_blocks_.clear();
  newest_ = oldest_ = -1;
  idle_blocks_ = 0;
}

std::vector<PageId> PrefixCache::AllPages() const {
  std::vector<PageId> pages;
  pages.reserve(map_.size() * layers_);
  for (const auto& [key, number] : map_) {
    pages.insert(pages.end(), PagesOf(number), PagesOf(number) + layers_);
  }
  return pages;
}

absl::Status PrefixCache::CheckBlock(int32_t number) const {
  const Block& block = blocks_[number];
  const auto error = [number](absl::string_view what) {
    return absl::InternalError(absl::StrCat("prefix block ", number, ": ", what));
  };
  int32_t shared = 0;
  for (int64_t layer = 0; layer < layers_; ++layer) {
    const PageId page = PagesOf(number)[layer];
    if (!arena_->IsAllocated(page)) return error("holds a page that is free");
    if (arena_->FormatOf(page) != Format::kRaw16) return error("holds a page of another format");
    if (arena_->WatchTag(page) != static_cast<uint32_t>(number)) return error("page not watched");
    shared += arena_->RefCount(page) > 1;
  }
  if (shared != block.shared_pages) return error("wrong count of shared pages");
  if (block.parent >= 0) {
    const auto it = map_.find(blocks_[block.parent].key);
    if (it == map_.end() || it->second != block.parent) return error("its parent is gone");
  }
  return absl::OkStatus();
}

absl::Status PrefixCache::CheckIntegrity() const {
  if (map_.size() + free_blocks_.size() != blocks_.size()) {
    return absl::InternalError("prefix blocks in use and free are not all blocks");
  }
  std::vector<int32_t> children(blocks_.size()), pinned_children(blocks_.size());
  int64_t idle = 0;
  for (const auto& [key, number] : map_) {
    const Block& block = blocks_[number];
    if (block.key != key) return absl::InternalError("a prefix key leads to another block");
    RETURN_IF_ERROR(CheckBlock(number));
    idle += !block.pinned();
    if (block.parent < 0) continue;
    ++children[block.parent];
    pinned_children[block.parent] += block.pinned();
  }
  for (const auto& [key, number] : map_) {
    if (blocks_[number].children != children[number] ||
        blocks_[number].pinned_children != pinned_children[number]) {
      return absl::InternalError(absl::StrCat("prefix block ", number, ": wrong child counts"));
    }
  }
  std::vector<bool> listed(blocks_.size());
  int64_t length = 0;
  int32_t newer = -1;
  for (int32_t i = newest_; i >= 0 && length <= idle; newer = i, i = blocks_[i].older, ++length) {
    const Block& block = blocks_[i];
    if (block.pinned() || listed[i] || block.newer != newer) {
      return absl::InternalError(absl::StrCat("prefix block ", i, ": wrongly in the idle list"));
    }
    if (block.parent >= 0 && !blocks_[block.parent].pinned() && !listed[block.parent]) {
      return absl::InternalError(absl::StrCat("prefix block ", i, ": newer than its parent"));
    }
    listed[i] = true;
  }
  if (length != idle || idle_blocks_ != idle || oldest_ != newer) {
    return absl::InternalError("the idle list does not hold the idle prefix blocks");
  }
  return absl::OkStatus();
}

}  // namespace tessera
