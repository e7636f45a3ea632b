#include "cache/sequence_cache.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {

SequenceCache::SequenceCache(Arena* arena, bool commits)
    : arena_(arena),
      commits_(commits),
      layers_(arena->geometry().layers),
      known_(arena->geometry().layers),
      pivots_(arena->geometry().layers),
      evicted_by_layer_(arena->geometry().layers) {}

SequenceCache::SequenceCache(SequenceCache&& other) noexcept { *this = std::move(other); }

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
  if (this == &other) return *this;
  Release();
  arena_ = std::exchange(other.arena_, nullptr);
  commits_ = other.commits_;
  committed_ = std::exchange(other.committed_, false);
  length_ = std::exchange(other.length_, 0);
  pages_ = std::exchange(other.pages_, 0);
  bytes_ = std::exchange(other.bytes_, 0);
  spare_ = std::exchange(other.spare_, 0);
  layers_ = std::exchange(other.layers_, {});
  known_ = std::exchange(other.known_, {});
  pivots_ = std::exchange(other.pivots_, {});
  retired_ = std::exchange(other.retired_, {});
  evicted_ = std::exchange(other.evicted_, {});
  evicted_by_layer_ = std::exchange(other.evicted_by_layer_, {});
  return *this;
}

SequenceCache::~SequenceCache() { Release(); }

std::vector<Run>& SequenceCache::Synced(int layer) const {
  std::vector<Run>& runs = layers_[layer];
  if (const int32_t known = std::exchange(known_[layer], length_); known < length_) {
    if (TokensInOpenRun(runs) == 0) runs.push_back({.format = kOpen, .open = true, .tail = known});
    runs.back().tokens += length_ - known;
  }
  return runs;
}

int64_t SequenceCache::PagesToExtend(int tokens) const {
  TESSERA_CHECK(tokens >= 0);
  if (tokens <= spare_) return 0;
  int64_t pages = 0;
  for (int layer = 0; layer < layers(); ++layer) {
    const int64_t open = TokensInOpenRun(Synced(layer));
    pages += CeilDiv<int64_t>(open + tokens, kOpenTokens) - CeilDiv<int64_t>(open, kOpenTokens);
  }
  return pages;
}

bool SequenceCache::Extend(int tokens) {
  TESSERA_CHECK(tokens <= std::numeric_limits<int>::max() - length_);
  if (tokens <= spare_) {
    length_ += tokens;
    spare_ -= tokens;
    return true;
  }
  // The arena's count is exact and all pages have one format, so the pages available now cannot run
  // out half way and nothing has to be rolled back.
  const int64_t fresh = PagesToExtend(tokens);
  if (fresh > arena_->available_pages(kOpen)) return false;
  pages_ += fresh;
  bytes_ += fresh * arena_->page_bytes(kOpen);
  length_ += tokens;
  spare_ = std::numeric_limits<int>::max();
  for (int layer = 0; layer < layers(); ++layer) {
    Run& open = Synced(layer).back();
    // A part-filled shared page would need copy-on-write here.
    TESSERA_CHECK((open.tokens - tokens) % kOpenTokens == 0 ||
                  arena_->RefCount(open.pages.back()) == 1);
    const size_t pages = CeilDiv(open.tokens, kOpenTokens);
    while (open.pages.size() < pages) {
      open.pages.push_back(arena_->Allocate(kOpen, commits_ && !committed_));
      TESSERA_CHECK(open.pages.back() != kNoPage);
    }
    spare_ = std::min(spare_, static_cast<int>(pages) * kOpenTokens - open.tokens);
  }
  return true;
}

void SequenceCache::Shrink(int tokens) {
  TESSERA_CHECK(tokens >= 0 && tokens <= length_);
  if (tokens == 0) return;
  spare_ = 0;
  for (int layer = 0; layer < layers(); ++layer) {
    std::vector<Run>& runs = Synced(layer);
    TESSERA_CHECK(tokens <= TokensInOpenRun(runs));
    Run& open = runs.back();
    // The dropped tokens were reserved last, so they are the end of the open run.
    TESSERA_CHECK(open.Position(open.tokens - tokens) == length_ - tokens);
    open.tokens -= tokens;
    if (open.listed.size() > static_cast<size_t>(open.tokens)) {
      open.listed.resize(open.tokens);
      open.tail = length_ - tokens;
    }
    const auto kept = open.pages.begin() + CeilDiv(open.tokens, kOpenTokens);
    UnrefAll({kept, open.pages.end()});
    open.pages.erase(kept, open.pages.end());
    if (open.tokens == 0) runs.pop_back();
    known_[layer] = length_ - tokens;
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
    pages_ += static_cast<int64_t>(pages[layer].size());
    bytes_ += static_cast<int64_t>(pages[layer].size()) * arena_->page_bytes(kOpen);
    layers_[layer].push_back(
        {.format = kOpen, .pages = pages[layer], .tokens = tokens, .open = true});
    known_[layer] = tokens;
  }
  length_ = tokens;
}

void SequenceCache::Release() {
  FinishMoves();
  for (std::vector<Run>& runs : layers_) {
    for (const Run& run : runs) ReleaseRun(run);
    runs.clear();
  }
  for (std::vector<int32_t>& pivots : pivots_) pivots.clear();
  committed_ = false;
  length_ = spare_ = 0;
  std::fill(known_.begin(), known_.end(), 0);
  evicted_ = {};
  std::fill(evicted_by_layer_.begin(), evicted_by_layer_.end(), 0);
}

KvSlot SequenceCache::SlotOf(int layer, int token) const {
  const std::vector<Run>& runs = Synced(layer);
  const int open = TokensInOpenRun(runs);
  TESSERA_CHECK(open > 0 && token < length_);
  const Run& run = runs.back();
  auto index = static_cast<int32_t>(run.listed.size()) + token - run.tail;
  if (token < run.tail) {
    const auto it = std::lower_bound(run.listed.begin(), run.listed.end(), token);
    TESSERA_CHECK(it != run.listed.end() && *it == token);
    index = static_cast<int32_t>(it - run.listed.begin());
  }
  return {run.pages[index / kOpenTokens], static_cast<uint32_t>(index % kOpenTokens)};
}

double SequenceCache::MeanBits() const {
  double bits = 0, values = 0;
  for (int layer = 0; layer < layers(); ++layer) {
    for (const Run& run : Synced(layer)) {
      bits += 8.0 * run.tokens * static_cast<double>(arena_->page_bytes(run.format)) /
              PageTokens(run.format);
      if (run.header != kNoPage) {
        bits += 8.0 * static_cast<double>(arena_->page_bytes(Format::kHeader));
      }
      values += 2.0 * run.tokens * arena_->geometry().kv_heads * arena_->geometry().head_dim;
    }
  }
  return values > 0 ? bits / values : 0;
}

absl::Status SequenceCache::CheckLayer(int layer) const {
  const auto error = [layer](absl::string_view what) {
    return absl::InternalError(absl::StrCat("layer ", layer, ": ", what));
  };
  const std::vector<Run>& runs = Synced(layer);
  std::vector<bool> stored(length_);
  int64_t tokens = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run& run = runs[r];
    if (run.tokens <= 0) return error("an empty run");
    if (run.open && (r + 1 < runs.size() || run.format != kOpen)) {
      return error("the open run is not the last or not at 16 bit");
    }
    if (r > 0 && !run.open) {
      const Run& previous = runs[r - 1];
      const bool next_segment = HasHeader(run.format) && run.format == previous.format &&
                                !run.listed.empty() && !previous.listed.empty() &&
                                run.listed.front() > previous.listed.back();
      if (run.format <= previous.format && !next_segment) {
        return error("closed runs are not in the order of formats and images");
      }
    }
    if ((run.header != kNoPage) != HasHeader(run.format))
      return error("a header page is missing or superfluous");
    if (run.header != kNoPage &&
        (!arena_->IsAllocated(run.header) || arena_->FormatOf(run.header) != Format::kHeader)) {
      return error("a header is free or of another format");
    }
    if (static_cast<int64_t>(run.pages.size()) != CeilDiv(run.tokens, PageTokens(run.format))) {
      return error("a run has too many or too few pages");
    }
    for (PageId page : run.pages) {
      if (!arena_->IsAllocated(page)) return error("holds a page that is free");
      if (arena_->FormatOf(page) != run.format) return error("holds a page of another format");
    }
    const auto listed = static_cast<int32_t>(run.listed.size());
    if (run.open ? listed > run.tokens : listed != run.tokens) {
      return error("a run lists too many or too few positions");
    }
    for (int i = 0; i < run.tokens; ++i) {
      const int32_t position = run.Position(i);
      if (position < 0 || position >= length_)
        return error("stores a token beyond the sequence's length");
      if (stored[position]) return error(absl::StrCat("stores token ", position, " twice"));
      if (i > 0 && position < run.Position(i - 1)) return error("a run is out of order");
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
  int64_t evicted = 0, bytes = 0;
  for (int layer = 0; layer < layers(); ++layer) {
    RETURN_IF_ERROR(CheckLayer(layer));
    for (const Run& run : layers_[layer]) {
      bool fresh = run.header == kNoPage || seen.insert(run.header).second;
      for (PageId page : run.pages) fresh &= seen.insert(page).second;
      bytes += static_cast<int64_t>(run.pages.size()) * arena_->page_bytes(run.format);
      if (run.header != kNoPage) bytes += arena_->page_bytes(Format::kHeader);
      if (!fresh) return absl::InternalError(absl::StrCat("layer ", layer, ": holds a page twice"));
    }
    evicted += evicted_by_layer_[layer];
  }
  for (PageId page : retired_) {
    if (!arena_->IsAllocated(page) || !seen.insert(page).second) {
      return absl::InternalError("a retired page is free or still used");
    }
    bytes += arena_->page_bytes(arena_->FormatOf(page));
  }
  if (bytes != bytes_ || static_cast<int64_t>(seen.size()) != pages_) {
    return absl::InternalError("held pages or their bytes do not add up");
  }
  if (evicted != evicted_.text + evicted_.vision) {
    return absl::InternalError("evicted tokens do not add up over classes");
  }
  return absl::OkStatus();
}

}  // namespace tessera
