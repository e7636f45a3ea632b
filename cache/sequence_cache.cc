#include "cache/sequence_cache.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base.h"

namespace tessera {

SequenceCache::SequenceCache(Arena* arena)
    : arena_(arena),
      layers_(arena->geometry().layers),
      pivots_(arena->geometry().layers),
      evicted_by_layer_(arena->geometry().layers) {}

SequenceCache::SequenceCache(SequenceCache&& other) noexcept { *this = std::move(other); }

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
  if (this == &other) return *this;
  Release();
  arena_ = std::exchange(other.arena_, nullptr);
  length_ = std::exchange(other.length_, 0);
  layers_ = std::exchange(other.layers_, {});
  pivots_ = std::exchange(other.pivots_, {});
  retired_ = std::exchange(other.retired_, {});
  evicted_ = std::exchange(other.evicted_, {});
  evicted_by_layer_ = std::exchange(other.evicted_by_layer_, {});
  return *this;
}

SequenceCache::~SequenceCache() { Release(); }

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
    if (TokensInOpenRun(runs) == 0) runs.push_back({.format = kOpen, .open = true});
    Run& open = runs.back();
    // Copy on write would go here, once a shared page can be part-filled.
    TESSERA_CHECK(open.tokens % kOpenTokens == 0 || arena_->RefCount(open.pages.back()) == 1);
    open.tokens += tokens;
    open.positions.reserve(open.tokens);
    for (int i = 0; i < tokens; ++i) open.positions.push_back(length_ + i);
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
    // What is dropped was reserved last, so it is what the open run ends with.
    TESSERA_CHECK(open.positions[open.tokens - tokens] == length_ - tokens);
    open.tokens -= tokens;
    open.positions.resize(open.tokens);
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
    Run run = {.format = kOpen, .pages = pages[layer], .tokens = tokens, .open = true};
    run.positions.resize(tokens);
    std::iota(run.positions.begin(), run.positions.end(), 0);
    layers_[layer].push_back(std::move(run));
  }
  length_ = tokens;
}

void SequenceCache::Release() {
  FinishMoves();
  for (std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) UnrefAll(run.pages);
    runs.clear();
  }
  for (std::vector<int32_t>& pivots : pivots_) pivots.clear();
  length_ = 0;
  evicted_ = {};
  std::fill(evicted_by_layer_.begin(), evicted_by_layer_.end(), 0);
}

KvSlot SequenceCache::SlotOf(int layer, int token) const {
  const std::vector<Run>& runs = layers_[layer];
  const int open = TokensInOpenRun(runs);
  TESSERA_CHECK(open > 0 && token < length_);
  const std::vector<int32_t>& positions = runs.back().positions;
  // What was added last has no gaps; before it a selection may have left some.
  int index = open - (length_ - token);
  if (index < 0 || positions[index] != token) {
    const auto it = std::lower_bound(positions.begin(), positions.end(), token);
    TESSERA_CHECK(it != positions.end() && *it == token);
    index = static_cast<int>(it - positions.begin());
  }
  return {runs.back().pages[index / kOpenTokens], static_cast<uint32_t>(index % kOpenTokens)};
}

int64_t SequenceCache::pages() const {
  int64_t pages = static_cast<int64_t>(retired_.size());
  for (const std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) pages += static_cast<int64_t>(run.pages.size());
  }
  return pages;
}

int64_t SequenceCache::bytes() const {
  int64_t bytes = static_cast<int64_t>(retired_.size()) * arena_->page_bytes(kOpen);
  for (const std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) {
      bytes += static_cast<int64_t>(run.pages.size()) * arena_->page_bytes(run.format);
    }
  }
  return bytes;
}

double SequenceCache::MeanBits() const {
  double bits = 0, values = 0;
  for (const std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) {
      bits += 8.0 * run.tokens * static_cast<double>(arena_->page_bytes(run.format)) /
              PageTokens(run.format);
      values += 2.0 * run.tokens * arena_->geometry().kv_heads * arena_->geometry().head_dim;
    }
  }
  return values > 0 ? bits / values : 0;
}

absl::Status SequenceCache::CheckLayer(int layer) const {
  const auto error = [layer](absl::string_view what) {
    return absl::InternalError(absl::StrCat("layer ", layer, ": ", what));
  };
  const std::vector<Run>& runs = layers_[layer];
  std::vector<bool> stored(length_);
  int64_t tokens = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run& run = runs[r];
    if (run.tokens <= 0) return error("an empty run");
    if (run.open && (r + 1 < runs.size() || run.format != kOpen)) {
      return error("the open run is not the last or not at 16 bit");
    }
    if (r > 0 && !run.open && run.format <= runs[r - 1].format) {
      return error("closed runs are not in the order of formats");
    }
    if (static_cast<int64_t>(run.pages.size()) != CeilDiv(run.tokens, PageTokens(run.format))) {
      return error("a run has too many or too few pages");
    }
    for (PageId page : run.pages) {
      if (!arena_->IsAllocated(page)) return error("holds a page that is free");
      if (arena_->FormatOf(page) != run.format) return error("holds a page of another format");
    }
    if (run.positions.size() != static_cast<size_t>(run.tokens)) {
      return error("a run has too many or too few positions");
    }
    for (int i = 0; i < run.tokens; ++i) {
      const int32_t position = run.positions[i];
      if (position < 0 || position >= length_) return error("stores a token that is not there");
      if (stored[position]) return error(absl::StrCat("stores token ", position, " twice"));
      if (i > 0 && position < run.positions[i - 1]) return error("a run is out of order");
      stored[position] = true;
    }
    tokens += run.tokens;
  }
  if (tokens + evicted_by_layer_[layer] != length_) {
    return error(absl::StrCat(tokens, " tokens stored and ", evicted_by_layer_[layer],
                              " evicted, not ", length_));
  }
  return absl::OkStatus();
}

absl::Status SequenceCache::CheckIntegrity() const {
  std::unordered_set<PageId> seen;
  int64_t evicted = 0;
  for (int layer = 0; layer < layers(); ++layer) {
    RETURN_IF_ERROR(CheckLayer(layer));
    for (const Run& run : layers_[layer]) {
      for (PageId page : run.pages) {
        if (!seen.insert(page).second) {
          return absl::InternalError(absl::StrCat("layer ", layer, ": holds a page twice"));
        }
      }
    }
    evicted += evicted_by_layer_[layer];
  }
  for (PageId page : retired_) {
    if (!arena_->IsAllocated(page) || !seen.insert(page).second) {
      return absl::InternalError("a retired page is free or still used");
    }
  }
  if (evicted != evicted_.text + evicted_.vision) {
    return absl::InternalError("evicted tokens do not add up over classes");
  }
  return absl::OkStatus();
}

}  // namespace tessera
