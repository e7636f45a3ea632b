// SequenceCache, second part: the functions that move tokens between runs (commit, eviction, window
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

constexpr QuantRule kCopy;  // RAW16 to RAW16 has no parameters

// Indices of tokens in the open run, by the format that they will be stored in.
using ByFormat = std::array<std::vector<int32_t>, kNumFormats>;

// Tokens that a commit moves into one closed run.
struct Leaving {
  Format format;
  int32_t segment;                // image number; 0 if the format has no header page
  std::vector<int32_t> tokens{};  // indices in the open run
};

// Appends the tokens of `open` at `indices` to `to`, whose pages are already allocated, and names
// the moves in `batch`.
void Append(const Run& open, absl::Span<const int32_t> indices, Run* to, MoveBatch* batch) {
  const int32_t page_tokens = PageTokens(to->format);
  int32_t page = to->tokens / page_tokens, slot = to->tokens % page_tokens;
  const size_t moves = batch->moves.size(), listed = to->listed.size(), n = indices.size();
  batch->moves.resize(moves + n);
  to->listed.resize(listed + n);
  for (size_t i = 0; i < n; ++i) {
    const auto index = static_cast<uint32_t>(indices[i]);
    batch->moves[moves + i] = {{open.pages[index / kRawTokens], index % kRawTokens},
                               {to->pages[page], static_cast<uint32_t>(slot)},
                               to->header};
    to->listed[listed + i] = open.Position(indices[i]);
    if (++slot == page_tokens) {
      slot = 0;
      ++page;
    }
  }
  to->tokens += static_cast<int32_t>(n);
}

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

bool SequenceCache::Commit(int layer, absl::Span<const int32_t> kept,
                           absl::Span<const uint8_t> vision, const LayerStorage& storage,
                           std::vector<MoveBatch>* moves, absl::Span<const int32_t> pivots) {
  std::vector<Run>& runs = Synced(layer);
  TESSERA_CHECK(storage.Valid());
  TESSERA_CHECK(pivots.empty() || (storage.exits() && !FillsWholePages(storage.text)));
  TESSERA_CHECK(std::includes(kept.begin(), kept.end(), pivots.begin(), pivots.end()));
  pivots_[layer].assign(pivots.begin(), pivots.end());
  TESSERA_CHECK(TokensInOpenRun(runs) == length_ && runs.size() <= 1);  // not yet committed
  committed_ = true;
  const auto kept_tokens = static_cast<int32_t>(kept.size());
  int32_t misplaced = 0;
  for (const int32_t* token = kept.begin(); token + 1 < kept.end(); ++token) {
    misplaced += int32_t{token[0] >= token[1]};
  }
  TESSERA_CHECK(misplaced == 0);
  TESSERA_CHECK(kept.empty() || (kept.front() >= 0 && kept.back() < length_));

  // The open run holds all tokens, so a token's index in it is its position.
  const int32_t older = std::max(0, kept_tokens - storage.window);
  const std::vector<int32_t> segments =
      HasHeader(storage.vision) ? SegmentsOf(vision) : std::vector<int32_t>();
  std::vector<Leaving> leaving;
  std::vector<int32_t> window;
  if (storage.raw()) window.assign(kept.begin(), kept.end());
  auto pivot = pivots.begin();
  for (int32_t i = static_cast<int32_t>(window.size()); i < kept_tokens; ++i) {
    Format format = storage.FormatOf(ClassAt(vision, kept[i]));
    if (pivot != pivots.end() && *pivot == kept[i]) {
      format = Format::kRaw16;
      ++pivot;
    }
    if (storage.exits() ? i >= older : format == kOpen) {
      window.push_back(kept[i]);
      continue;
    }
    const int32_t segment = HasHeader(format) ? segments[kept[i]] : 0;
    auto to = std::find_if(leaving.rbegin(), leaving.rend(), [&](const Leaving& l) {
      return l.format == format && l.segment == segment;
    });
    if (to == leaving.rend()) {
      leaving.push_back({format, segment});
      to = leaving.rbegin();
    }
    to->tokens.push_back(kept[i]);
  }
  if (FillsWholePages(storage.text) && !leaving.empty()) {  // then it is the layer's only format
    std::vector<int32_t>& tokens = leaving[0].tokens;
    const size_t left = tokens.size() % PageTokens(storage.text);
    window.insert(window.begin(), tokens.end() - static_cast<int64_t>(left), tokens.end());
    tokens.resize(tokens.size() - left);
    if (tokens.empty()) leaving.clear();
  }
  if (window.size() == static_cast<size_t>(length_)) return true;
  std::stable_sort(leaving.begin(), leaving.end(),
                   [](const Leaving& a, const Leaving& b) { return a.format < b.format; });

  std::vector<Run> fresh;
  bool room = true;
  const auto add_run = [&](Format format, const std::vector<int32_t>& tokens, bool open) {
    if (tokens.empty() || !room) return;
    fresh.push_back({.format = format, .open = open, .tail = length_});
    room = AllocatePages(format, CeilDiv<int64_t>(tokens.size(), PageTokens(format)),
                         &fresh.back().pages);
    if (!room || !HasHeader(format)) return;
    std::vector<PageId> header;
    room = AllocatePages(Format::kHeader, 1, &header);
    if (room) fresh.back().header = header.front();
  };
  for (const Leaving& l : leaving) add_run(l.format, l.tokens, false);
  add_run(kOpen, window, true);
  if (!room) {
    for (const Run& run : fresh) ReleaseRun(run);
    return false;
  }
  Run old = std::move(runs.back());
  for (size_t r = 0; r < fresh.size(); ++r) {
    Run& run = fresh[r];
    const QuantRule& rule = run.format == kOpen ? kCopy : storage.RuleOf(run.format);
    if (run.format == storage.vision && !run.open) run.map = storage.vision_map;
    Append(old, run.open ? window : leaving[r].tokens, &run, &BatchFor(*moves, run.format, rule));
  }
  runs = std::move(fresh);
  spare_ = 0;
  retired_.insert(retired_.end(), old.pages.begin(), old.pages.end());

  int32_t evicted_vision = 0;
  for (const uint8_t flag : vision.first(std::min<size_t>(vision.size(), length_))) {
    evicted_vision += int32_t{flag != 0};
  }
  for (const int32_t token : kept) {
    evicted_vision -= int32_t{ClassAt(vision, token) == TokenClass::kVision};
  }
  evicted_.vision += evicted_vision;
  evicted_.text += length_ - kept_tokens - evicted_vision;
  evicted_by_layer_[layer] = length_ - kept_tokens;
  return true;
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
  if (!moved.empty()) Append(old, moved, &open, &BatchFor(*moves, kOpen, kCopy));
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
    const QuantRule& rule = format == kOpen ? kCopy : storage.RuleOf(format);
    Append(open, by_format[f], &*run, &BatchFor(*moves, format, rule));
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
