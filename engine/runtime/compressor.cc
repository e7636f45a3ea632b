#include "engine/runtime/compressor.h"

#include <algorithm>
#include <limits>

#include "base/clock.h"

namespace tessera {
namespace {

// A commit moves the layers in this number of parts. Only one part's new pages exist next to the
// old ones at a time.
constexpr int kCommitParts = 8;

int64_t TokensOf(const std::vector<MoveBatch>& batches) {
  int64_t tokens = 0;
  for (const MoveBatch& batch : batches) tokens += std::ssize(batch.moves);
  return tokens;
}

// The number of computed tokens at which tokens next leave the sequence's window.
int64_t NextExit(const Sequence& s) {
  int64_t next = std::numeric_limits<int>::max();
  for (int layer = 0; layer < s.cache.layers(); ++layer) {
    next = std::min<int64_t>(next, s.cache.TokensToExit(layer, s.policy->Layer(layer)));
  }
  return s.computed + next;
}

}  // namespace

Compressor::Result Compressor::Compress(const std::vector<Sequence*>& sequences) {
  const absl::Time start = SteadyNow();
  Result result;
  for (Sequence* s : sequences) {
    const Kind kind = DueFor(*s);
    if (kind != Kind::kNone) Apply(s, Decide(s, kind), &result);
  }
  LaunchMoves(&result);  // window exits of all sequences are moved together
  if (result.report.commits > 0) {
    result.report.commit_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
  }
  return result;
}

Compressor::Kind Compressor::DueFor(const Sequence& s) {
  if (!s.running) return Kind::kNone;
  if (s.commit_due()) return Kind::kCommit;
  if (s.eviction_due()) return Kind::kEvict;
  return s.committed && s.computed >= s.next_exit ? Kind::kExit : Kind::kNone;
}

Compressor::Change Compressor::Decide(Sequence* s, Kind kind) const {
  Change change{.kind = kind};
  if (kind == Kind::kCommit) {
    const std::vector<LayerStats> statistics = s->statistics.Layers();
    change.kept = s->policy->Select(s->view(), statistics, geometry_);
    change.pivots = s->policy->Pivots(change.kept, statistics);
    if (s->keep_scores) s->scores = s->statistics.Scores();
    s->statistics.OnCommit();
  } else if (kind == Kind::kEvict) {
    const int64_t limit = s->token_limit();
    for (const LayerStats& layer : s->statistics.Layers()) {
      change.kept.push_back(s->policy->Keep(layer.columns, limit));
    }
  }
  return change;
}

void Compressor::Apply(Sequence* s, const Change& change, Result* result) {
  const bool commit = change.kind == Kind::kCommit, evict = change.kind == Kind::kEvict;
  const int layers_at_once = std::max(1, s->cache.layers() / kCommitParts);
  for (int layer = 0; layer < s->cache.layers(); ++layer) {
    if (!ApplyLayer(s, layer, change, result)) break;
    s->peak_bytes = std::max(s->peak_bytes, s->cache.bytes());
    if (commit || evict) s->statistics.Keep(layer, change.kept[layer]);
    // A sequence whose tokens are evicted moves nothing, but its pages are retired.
    if (moving_.empty() || moving_.back() != s) moving_.push_back(s);
    if (evict || (commit && (layer + 1) % layers_at_once == 0)) LaunchMoves(result);
  }
  s->committed = s->running;
  if (!s->running) return;
  s->next_exit = NextExit(*s);
  result->report.commits += commit ? 1 : 0;
}

bool Compressor::ApplyLayer(Sequence* s, int layer, const Change& change, Result* result) {
  const LayerStorage storage = s->policy->Layer(layer);
  int64_t before = TokensOf(moves_);
  const auto apply = [&] {
    switch (change.kind) {
      case Kind::kCommit:
        return s->cache.Commit(layer, change.kept[layer], s->vision, storage, &moves_,
                               change.pivots[layer]);
      case Kind::kEvict:
        return s->cache.Evict(layer, change.kept[layer], s->vision, &moves_);
      default:
        return s->cache.ExitWindow(layer, s->vision, storage, &moves_);
    }
  };
  while (!apply()) {
    if (!moving_.empty()) {
      LaunchMoves(result);  // frees the pages that these moves read
      before = 0;
    } else if (!scheduler_->FreePagesFor(s, &result->preempted)) {
      scheduler_->Preempt(s);  // there is no room even alone: it starts again later
      result->preempted.push_back(s);
      return false;
    }
  }
  if (change.kind == Kind::kExit) {
    result->report.exited_tokens +=
        static_cast<double>(TokensOf(moves_) - before) / s->cache.layers();
  }
  return true;
}

void Compressor::LaunchMoves(Result* result) {
  while (!moves_.empty() && moves_.back().moves.empty()) moves_.pop_back();
  if (!moves_.empty()) {
    const absl::Time start = SteadyNow();
    move_(moves_);
    result->report.move_seconds += absl::ToDoubleSeconds(SteadyNow() - start);
  }
  for (Sequence* s : moving_) s->cache.FinishMoves();
  for (MoveBatch& batch : moves_) batch.moves.clear();  // their memory stays for the next part
  moving_.clear();
}

}  // namespace tessera
