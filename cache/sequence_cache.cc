#include "cache/sequence_cache.h"

#include <limits>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base.h"

namespace tessera {

SequenceCache::SequenceCache(Arena* arena) : arena_(arena), layers_(arena->geometry().layers) {}

SequenceCache::SequenceCache(SequenceCache&& other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)),
      length_(std::exchange(other.length_, 0)),
      layers_(std::exchange(other.layers_, {})) {}

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
  if (this == &other) return *this;
  Release();
  arena_ = std::exchange(other.arena_, nullptr);
  length_ = std::exchange(other.length_, 0);
  layers_ = std::exchange(other.layers_, {});
  return *this;
}

SequenceCache::~SequenceCache() { Release(); }

int32_t SequenceCache::TokensInOpenRun(const std::vector<Run>& runs) {
  return !runs.empty() && runs.back().format == kOpen ? runs.back().tokens : 0;
}

int64_t SequenceCache::PagesToExtend(int tokens) const {
  TESSERA_CHECK(tokens >= 0);
  int64_t pages = 0;
  for (const std::vector<Run>& runs : layers_) {
    const int64_t open = TokensInOpenRun(runs);
    pages += CeilDiv<int64_t>(open + tokens, kOpenTokens) - CeilDiv<int64_t>(open, kOpenTokens);
  }
  return pages;
}

bool SequenceCache::Extend(int tokens) {
  if (tokens == 0) return true;
  // The arena's count is exact and all pages are of one format: what is there now cannot run out
  // half way, so there is nothing to roll back.
  if (PagesToExtend(tokens) > arena_->available_pages(kOpen)) return false;
  TESSERA_CHECK(tokens <= std::numeric_limits<int>::max() - length_);
  for (std::vector<Run>& runs : layers_) {
    if (TokensInOpenRun(runs) == 0) runs.push_back({kOpen, {}, 0});
    Run& open = runs.back();
    // Copy on write would go here, once a shared page can be part-filled.
    TESSERA_CHECK(open.tokens % kOpenTokens == 0 || arena_->RefCount(open.pages.back()) == 1);
    open.tokens += tokens;
    const size_t pages = CeilDiv(open.tokens, kOpenTokens);
    while (open.pages.size() < pages) {
      open.pages.push_back(arena_->Allocate(kOpen));
      TESSERA_CHECK(open.pages.back() != kNoPage);
    }
  }
  length_ += tokens;
  return true;
}

void SequenceCache::Shrink(int tokens) {
  TESSERA_CHECK(tokens >= 0 && tokens <= length_);
  if (tokens == 0) return;
  for (std::vector<Run>& runs : layers_) {
    TESSERA_CHECK(tokens <= TokensInOpenRun(runs));
    Run& open = runs.back();
    open.tokens -= tokens;
    const size_t pages = CeilDiv(open.tokens, kOpenTokens);
    while (open.pages.size() > pages) {
      arena_->Unref(open.pages.back());
      open.pages.pop_back();
    }
    if (open.tokens == 0) runs.pop_back();
  }
  length_ -= tokens;
}

void SequenceCache::AdoptPrefix(const std::vector<std::vector<PageId>>& pages, int tokens) {
  TESSERA_CHECK(length_ == 0 && tokens >= 0 && tokens % kOpenTokens == 0);
  if (tokens == 0) return;
  TESSERA_CHECK(pages.size() == layers_.size());
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    TESSERA_CHECK(layers_[layer].empty());
    TESSERA_CHECK(pages[layer].size() == static_cast<size_t>(tokens / kOpenTokens));
    for (PageId page : pages[layer]) {
      TESSERA_CHECK(arena_->FormatOf(page) == kOpen);
      arena_->Ref(page);
    }
    layers_[layer].push_back({kOpen, pages[layer], tokens});
  }
  length_ = tokens;
}

void SequenceCache::Release() {
  for (std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) {
      for (PageId page : run.pages) arena_->Unref(page);
    }
    runs.clear();
  }
  length_ = 0;
}

KvSlot SequenceCache::SlotOf(int layer, int token) const {
  const std::vector<Run>& runs = layers_[layer];
  const int first = length_ - TokensInOpenRun(runs);  // the open run holds the newest tokens
  TESSERA_CHECK(token >= first && token < length_);
  const int index = token - first;
  return {runs.back().pages[index / kOpenTokens], static_cast<uint32_t>(index % kOpenTokens)};
}

int64_t SequenceCache::pages() const {
  int64_t pages = 0;
  for (const std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) pages += static_cast<int64_t>(run.pages.size());
  }
  return pages;
}

int64_t SequenceCache::bytes() const {
  int64_t bytes = 0;
  for (const std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) {
      bytes += static_cast<int64_t>(run.pages.size()) * arena_->page_bytes(run.format);
    }
  }
  return bytes;
}

absl::Status SequenceCache::CheckIntegrity() const {
  std::unordered_set<PageId> seen;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const auto error = [layer](absl::string_view what) {
      return absl::InternalError(absl::StrCat("layer ", layer, ": ", what));
    };
    int64_t tokens = 0;
    for (const Run& run : layers_[layer]) {
      if (run.tokens <= 0) return error("an empty run");
      if (static_cast<int64_t>(run.pages.size()) != CeilDiv(run.tokens, PageTokens(run.format))) {
        return error("a run has too many or too few pages");
      }
      for (PageId page : run.pages) {
        if (!arena_->IsAllocated(page)) return error("holds a page that is free");
        if (arena_->FormatOf(page) != run.format) return error("holds a page of another format");
        if (!seen.insert(page).second) return error("holds a page twice");
      }
      tokens += run.tokens;
    }
    if (tokens != length_) return error(absl::StrCat(tokens, " tokens, not ", length_));
  }
  return absl::OkStatus();
}

}  // namespace tessera
