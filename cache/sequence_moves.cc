// SequenceCache, third part: the functions that move tokens after the commit (eviction, window
// exit).
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/base.h"
#include "cache/sequence_cache.h"

namespace tessera {
namespace {

constexpr int kRawTokens = PageTokens(Format::kRaw16);

constexpr bool ExitsFit() {
  for (int f = 0; f < kNumFormats; ++f) {
    const Format format = static_cast<Format>(f);
    if (FillsWholePages(format) && kExitTokens % PageTokens(format) != 0) return false;
  }
  return kExitTokens % kRawTokens == 0;
}
static_assert(ExitsFit(), "a window exit must empty and fill whole pages");

// Indices of tokens in the open run, by the format that they will be stored in.
using ByFormat = std::array<std::vector<int32_t>, kNumFormats>;

}  // namespace

bool SequenceCache::AllocatePages(Format format, int64_t count, std::vector<PageId>* pages) {
  for (int64_t i = 0; i < count; ++i) {
    const PageId page = arena_->Allocate(format);
    if (page == kNoPage) return false;
    pages->push_back(page);
    ++pages_;
    bytes_ += arena_->page_bytes(format);
  }
  return true;
}

void SequenceCache::UnrefAll(const std::vector<PageId>& pages) {
  if (pages.empty()) return;
  const auto n = static_cast<int64_t>(pages.size());
  pages_ -= n;
  bytes_ -= n * arena_->page_bytes(arena_->FormatOf(pages.front()));  // all have one format
  arena_->Unref(pages);
}

void SequenceCache::ReleaseRun(const Run& run) {
  UnrefAll(run.pages);
  if (run.header != kNoPage) UnrefAll({run.header});
}

void SequenceCache::FinishMoves() {
  UnrefAll(retired_);
  retired_.clear();
}

Format SequenceCache::FormatOf(int layer, int32_t position, absl::Span<const uint8_t> vision,
                               const LayerStorage& storage) const {
  const std::vector<int32_t>& pivots = pivots_[layer];
  if (std::binary_search(pivots.begin(), pivots.end(), position)) return Format::kRaw16;
  return storage.FormatOf(ClassAt(vision, position));
}

bool SequenceCache::Evict(int layer, absl::Span<const int32_t> kept,
                          absl::Span<const uint8_t> vision, std::vector<MoveBatch>* moves) {
  std::vector<Run>& runs = Synced(layer);
  TESSERA_CHECK(runs.size() == 1 && runs.back().open);
  Run& open = runs.back();
  const auto tokens = static_cast<int32_t>(kept.size());
  int32_t unmoved = 0;
  while (unmoved < tokens && kept[unmoved] == unmoved) ++unmoved;
  if (unmoved == open.tokens) return true;
  TESSERA_CHECK(tokens > 0);

  const int32_t pages = unmoved / kRawTokens;  // full pages that stay
  std::vector<PageId> fresh;
  if (!AllocatePages(kOpen, CeilDiv(tokens, kRawTokens) - pages, &fresh)) {
    UnrefAll(fresh);
    return false;
  }
  Run old = std::move(open);
  open = {.format = kOpen, .tokens = pages * kRawTokens, .open = true, .tail = length_};
  for (int32_t i = 0; i < open.tokens; ++i) open.listed.push_back(old.Position(i));
  open.pages.assign(old.pages.begin(), old.pages.begin() + pages);
  open.pages.insert(open.pages.end(), fresh.begin(), fresh.end());
  const absl::Span<const int32_t> moved = kept.subspan(open.tokens);
  if (!moved.empty()) AppendMoves(old, moved, &open, &BatchFor(*moves, kOpen, kCopyRule));
  retired_.insert(retired_.end(), old.pages.begin() + pages, old.pages.end());
  spare_ = 0;

  for (int32_t i = 0, next = 0; i < old.tokens; ++i) {
    if (next < tokens && kept[next] == i) {
      ++next;
    } else {
      ++(ClassAt(vision, old.Position(i)) == TokenClass::kText ? evicted_.text : evicted_.vision);
      ++evicted_by_layer_[layer];
    }
  }
  return true;
}

int SequenceCache::DueExits(const std::vector<Run>& runs, const LayerStorage& storage) {
  if (!storage.exits()) return 0;
  return std::max(0, TokensInOpenRun(runs) - storage.window) / kExitTokens;
}

int SequenceCache::TokensToExit(int layer, const LayerStorage& storage) const {
  if (!storage.exits()) return std::numeric_limits<int>::max();
  return std::max(0, storage.window + kExitTokens - TokensInOpenRun(Synced(layer)));
}

bool SequenceCache::ExitWindow(int layer, absl::Span<const uint8_t> vision,
                               const LayerStorage& storage, std::vector<MoveBatch>* moves) {
  TESSERA_CHECK(storage.Valid());
  std::vector<Run>& runs = Synced(layer);
  const int32_t leaving = DueExits(runs, storage) * kExitTokens;
  if (leaving == 0) return true;

  Run open = std::move(runs.back());
  runs.pop_back();
  spare_ = 0;
  ByFormat by_format;
  for (int32_t i = 0; i < leaving; ++i) {
    const Format format = FormatOf(layer, open.Position(i), vision, storage);
    by_format[static_cast<int>(format)].push_back(i);
  }
  const auto run_of =
      [&runs](Format format) {  // the closed run of `format`, or the place to insert it
        return std::lower_bound(runs.begin(), runs.end(), format,
                                [](const Run& run, Format f) { return run.format < f; });
      };
  std::array<std::vector<PageId>, kNumFormats> fresh;
  bool room = true;
  for (int f = 0; f < kNumFormats && room; ++f) {
    if (by_format[f].empty()) continue;
    const Format format = static_cast<Format>(f);
    const auto run = run_of(format);
    const bool exists = run != runs.end() && run->format == format;
    const int64_t tokens = (exists ? run->tokens : 0) + static_cast<int64_t>(by_format[f].size());
    const int64_t pages = exists ? static_cast<int64_t>(run->pages.size()) : 0;
    room = AllocatePages(format, CeilDiv<int64_t>(tokens, PageTokens(format)) - pages, &fresh[f]);
  }
  if (!room) {
    for (const std::vector<PageId>& pages : fresh) UnrefAll(pages);
    runs.push_back(std::move(open));
    return false;
  }
  for (int f = 0; f < kNumFormats; ++f) {
    if (by_format[f].empty()) continue;
    const Format format = static_cast<Format>(f);
    auto run = run_of(format);
    if (run == runs.end() || run->format != format) run = runs.insert(run, {.format = format});
    run->pages.insert(run->pages.end(), fresh[f].begin(), fresh[f].end());
    const QuantRule& rule = format == kOpen ? kCopyRule : storage.RuleOf(format);
    AppendMoves(open, by_format[f], &*run, &BatchFor(*moves, format, rule));
  }
  const auto pages_end = open.pages.begin() + leaving / kRawTokens;
  retired_.insert(retired_.end(), open.pages.begin(), pages_end);
  open.pages.erase(open.pages.begin(), pages_end);
  const auto listed = std::min(leaving, static_cast<int32_t>(open.listed.size()));
  open.listed.erase(open.listed.begin(), open.listed.begin() + listed);
  open.tail += leaving - listed;
  open.tokens -= leaving;
  if (open.tokens > 0) runs.push_back(std::move(open));
  return true;
}

}  // namespace tessera
