// SequenceCache, second part: the commit, which moves a prompt's kept tokens into the formats of
// their layer's storage.
#include <algorithm>
#include <utility>

#include "base/base.h"
#include "cache/sequence_cache.h"

namespace tessera {
namespace {

// Says whether `kept` is a strictly ascending list of indices below `length`. Free of branches: it
// reads every kept token of every layer.
bool Ascends(absl::Span<const int32_t> kept, int32_t length) {
  int32_t misplaced = 0;
  for (const int32_t* token = kept.begin(); token + 1 < kept.end(); ++token) {
    misplaced += int32_t{token[0] >= token[1]};
  }
  return misplaced == 0 && (kept.empty() || (kept.front() >= 0 && kept.back() < length));
}

}  // namespace

// The places of a commit's kept tokens, by their index in the open run. The open run holds all
// tokens, so an index in it is a position.
struct SequenceCache::Division {
  struct Part {  // one closed run
    Format format;
    int32_t segment;  // image number; 0 if the format has no header page
    std::vector<int32_t> tokens{};
  };
  std::vector<Part> leaving;    // by format, then by segment
  std::vector<int32_t> window;  // tokens that stay in the open run

  // Adds a token to the part of its format and segment.
  void Leave(int32_t token, Format format, int32_t segment) {
    auto to = std::find_if(leaving.rbegin(), leaving.rend(), [&](const Part& part) {
      return part.format == format && part.segment == segment;
    });
    if (to == leaving.rend()) {
      leaving.push_back({format, segment});
      to = leaving.rbegin();
    }
    to->tokens.push_back(token);
  }

  // Returns the tokens beyond the last whole page to the window. `format` is the only one.
  void KeepWholePages(Format format) {
    if (leaving.empty()) return;
    std::vector<int32_t>& tokens = leaving[0].tokens;
    const auto rest = static_cast<int64_t>(tokens.size() % PageTokens(format));
    window.insert(window.begin(), tokens.end() - rest, tokens.end());
    tokens.resize(tokens.size() - rest);
    if (tokens.empty()) leaving.clear();
  }
};

SequenceCache::Division SequenceCache::Divide(absl::Span<const int32_t> kept,
                                              absl::Span<const uint8_t> vision,
                                              const LayerStorage& storage,
                                              absl::Span<const int32_t> pivots) {
  Division division;
  if (storage.raw()) {
    division.window.assign(kept.begin(), kept.end());
    return division;
  }
  const auto kept_tokens = static_cast<int32_t>(kept.size());
  const int32_t older = std::max(0, kept_tokens - storage.window);
  const std::vector<int32_t> segments =
      HasHeader(storage.vision) ? SegmentsOf(vision) : std::vector<int32_t>();
  auto pivot = pivots.begin();
  for (int32_t i = 0; i < kept_tokens; ++i) {
    Format format = storage.FormatOf(ClassAt(vision, kept[i]));
    if (pivot != pivots.end() && *pivot == kept[i]) {
      format = Format::kRaw16;
      ++pivot;
    }
    if (storage.exits() ? i >= older : format == kOpen) {
      division.window.push_back(kept[i]);
    } else {
      division.Leave(kept[i], format, HasHeader(format) ? segments[kept[i]] : 0);
    }
  }
  if (FillsWholePages(storage.text)) division.KeepWholePages(storage.text);
  std::stable_sort(
      division.leaving.begin(), division.leaving.end(),
      [](const Division::Part& a, const Division::Part& b) { return a.format < b.format; });
  return division;
}

bool SequenceCache::Commit(int layer, absl::Span<const int32_t> kept,
                           absl::Span<const uint8_t> vision, const LayerStorage& storage,
                           std::vector<MoveBatch>* moves, absl::Span<const int32_t> pivots) {
  std::vector<Run>& runs = Synced(layer);
  TESSERA_CHECK(storage.Valid());
  TESSERA_CHECK(pivots.empty() || (storage.exits() && !FillsWholePages(storage.text)));
  TESSERA_CHECK(std::includes(kept.begin(), kept.end(), pivots.begin(), pivots.end()));
  TESSERA_CHECK(TokensInOpenRun(runs) == length_ && runs.size() <= 1);  // not yet committed
  TESSERA_CHECK(Ascends(kept, length_));
  pivots_[layer].assign(pivots.begin(), pivots.end());
  committed_ = true;
  const Division division = Divide(kept, vision, storage, pivots);
  if (division.window.size() == static_cast<size_t>(length_)) return true;

  std::vector<Run> fresh;
  if (!AllocateRuns(division, &fresh)) {
    for (const Run& run : fresh) ReleaseRun(run);
    return false;
  }
  Run old = std::move(runs.back());
  for (size_t r = 0; r < fresh.size(); ++r) {
    Run& run = fresh[r];
    const QuantRule& rule = run.format == kOpen ? kCopyRule : storage.RuleOf(run.format);
    if (run.format == storage.vision && !run.open) run.map = storage.vision_map;
    AppendMoves(old, run.open ? division.window : division.leaving[r].tokens, &run,
                &BatchFor(*moves, run.format, rule));
  }
  runs = std::move(fresh);
  spare_ = 0;
  retired_.insert(retired_.end(), old.pages.begin(), old.pages.end());
  CountEvicted(layer, kept, vision);
  return true;
}

bool SequenceCache::AllocateRuns(const Division& division, std::vector<Run>* fresh) {
  const auto allocate = [&](Format format, const std::vector<int32_t>& tokens, bool open) {
    if (tokens.empty()) return true;
    fresh->push_back({.format = format, .open = open, .tail = length_});
    Run& run = fresh->back();
    if (!AllocatePages(format, CeilDiv<int64_t>(tokens.size(), PageTokens(format)), &run.pages)) {
      return false;
    }
    std::vector<PageId> header;
    if (HasHeader(format) && !AllocatePages(Format::kHeader, 1, &header)) return false;
    if (!header.empty()) run.header = header.front();
    return true;
  };
  for (const Division::Part& part : division.leaving) {
    if (!allocate(part.format, part.tokens, false)) return false;
  }
  return allocate(kOpen, division.window, true);
}

void SequenceCache::CountEvicted(int layer, absl::Span<const int32_t> kept,
                                 absl::Span<const uint8_t> vision) {
  int32_t evicted_vision = 0;
  for (const uint8_t flag : vision.first(std::min<size_t>(vision.size(), length_))) {
    evicted_vision += int32_t{flag != 0};
  }
  for (const int32_t token : kept) {
    evicted_vision -= int32_t{ClassAt(vision, token) == TokenClass::kVision};
  }
  const int64_t evicted = length_ - static_cast<int64_t>(kept.size());
  evicted_.vision += evicted_vision;
  evicted_.text += evicted - evicted_vision;
  evicted_by_layer_[layer] = evicted;
}

}  // namespace tessera
