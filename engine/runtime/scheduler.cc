#include "engine/runtime/scheduler.h"

#include <algorithm>
#include <limits>

namespace tessera {
namespace {

// A commit's layers are moved in so many parts.
constexpr int kCommitParts = 8;

bool Before(const Sequence* a, const Sequence* b) {
  return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

void InsertByRank(std::vector<Sequence*>& list, Sequence* s) {
  list.insert(std::upper_bound(list.begin(), list.end(), s, Before), s);
}

bool Erase(std::vector<Sequence*>& list, Sequence* s) {
  const auto it = std::find(list.begin(), list.end(), s);
  if (it == list.end()) return false;
  list.erase(it);
  return true;
}

int64_t TokensOf(const std::vector<MoveBatch>& batches) {
  int64_t tokens = 0;
  for (const MoveBatch& batch : batches) tokens += std::ssize(batch.moves);
  return tokens;
}

}  // namespace

void Scheduler::Add(Sequence* sequence) { InsertByRank(waiting_, sequence); }

void Scheduler::Remove(Sequence* sequence) {
  TESSERA_CHECK(Erase(sequence->running ? running_ : waiting_, sequence));
  sequence->running = false;
  sequence->cache.Release();
}

void Scheduler::Schedule(Sequence* sequence, int count, StepPlan* plan) {
  const int first = sequence->computed;
  const bool sample = first + count == sequence->known_tokens();
  plan->items.push_back({sequence, first, count, sample});
  plan->rows += count;
}

void Scheduler::Preempt(Sequence* sequence, StepPlan* plan) {
  const auto item = std::find_if(plan->items.begin(), plan->items.end(),
                                 [&](const auto& i) { return i.sequence == sequence; });
  if (item != plan->items.end()) {
    plan->rows -= item->count;
    plan->items.erase(item);
  }
  TESSERA_CHECK(Erase(running_, sequence));
  sequence->running = false;
  sequence->cache.Release();
  sequence->computed = 0;
  sequence->committed = false;
  sequence->stats.Clear();
  sequence->registered_blocks = 0;
  ++sequence->preemptions;
  InsertByRank(waiting_, sequence);
  plan->preempted.push_back(sequence);
}

bool Scheduler::FreeSome(Sequence* sequence, int64_t pages, StepPlan* plan) {
  if (prefix_->Reclaim(std::max<int64_t>(pages, 1)) > 0) return true;
  Sequence* victim = running_.back();
  if (victim == sequence) return false;
  Preempt(victim, plan);
  return true;
}

bool Scheduler::MakeRoom(Sequence* sequence, int tokens, StepPlan* plan) {
  while (!sequence->cache.Extend(tokens)) {
    const int64_t missing =
        sequence->cache.PagesToExtend(tokens) - arena_->available_pages(Format::kRaw16);
    if (!FreeSome(sequence, missing, plan)) return false;
  }
  sequence->peak_bytes = std::max(sequence->peak_bytes, sequence->cache.bytes());
  return true;
}

bool Scheduler::TryAdmit(Sequence* sequence) {
  int hit_blocks = 0, unused_blocks = 0;
  if (sequence->use_prefix) {
    // At least one token must run, or there would be no logits.
    // What follows a commit is not looked up: it is computed over compressed pages. And a hit skips
    // the layers, so it ends where the policy's statistics begin.
    const int first_to_run = sequence->needs.FirstToRun(sequence->view());
    const int max_blocks = (sequence->plain_tokens() - 1) / kBlockTokens;
    const PrefixCache::Match match =
        prefix_->Find(sequence->BlockKeys(), std::min(max_blocks, first_to_run / kBlockTokens));
    hit_blocks = match.blocks;
    unused_blocks = prefix_->Peek(sequence->BlockKeys(), max_blocks) - hit_blocks;
    if (hit_blocks > 0) sequence->cache.AdoptPrefix(match.pages, hit_blocks * kBlockTokens);
  }
  if (!running_.empty()) {
    // What running sequences still need for their known tokens, and one page a layer of headroom
    // for each of their next tokens.
    int64_t promised = 0;
    for (const Sequence* s : running_)
      promised += s->cache.PagesToExtend(s->known_tokens() - s->cache.length()) + s->cache.layers();
    const int remaining = sequence->known_tokens() - sequence->cache.length();
    if (sequence->cache.PagesToExtend(remaining) + promised >
        arena_->available_pages(Format::kRaw16) + prefix_->reclaimable_pages()) {
      sequence->cache.Release();
      return false;
    }
  }
  const int hit = hit_blocks * kBlockTokens;
  sequence->computed = hit;
  sequence->registered_blocks = hit_blocks;
  if (!sequence->was_admitted) {
    sequence->cached_tokens = std::min(hit, sequence->prompt_tokens);
    sequence->recomputed_tokens = unused_blocks * kBlockTokens;
  }
  sequence->was_admitted = true;
  sequence->running = true;
  InsertByRank(running_, sequence);
  return true;
}

StepPlan Scheduler::Plan() {
  TESSERA_CHECK(moving_.empty());
  StepPlan plan;
  // Copies, because preemption edits running_. Decodes first, then chunks, each by rank.
  for (const bool decode_pass : {true, false}) {
    const std::vector<Sequence*> candidates = running_;
    for (Sequence* s : candidates) {
      const int room = limits_.max_batch_tokens - plan.rows;
      if (room <= 0) break;
      if ((s->to_compute() == 1) != decode_pass) continue;
      if (!s->running || s->held) continue;  // not running: preempted a moment ago
      const int count = std::min(s->NextChunk(), room);
      if (MakeRoom(s, count, &plan)) {
        Schedule(s, count, &plan);
      } else {
        Preempt(s, &plan);
      }
    }
  }
  // New sequences only while memory is not contended; a higher priority may push lower ones out.
  const bool contended = !plan.preempted.empty();
  while (!contended && !waiting_.empty() && plan.rows < limits_.max_batch_tokens) {
    Sequence* s = waiting_.front();
    if (s->held) break;  // preempted, and soon known to be at its end or not
    if (running() >= limits_.max_sequences || !TryAdmit(s)) {
      if (running_.empty() || running_.back()->priority >= s->priority) break;
      Preempt(running_.back(), &plan);
      continue;
    }
    waiting_.erase(waiting_.begin());
    plan.admitted.push_back(s);
    const int count = std::min(s->NextChunk(), limits_.max_batch_tokens - plan.rows);
    // Ranked above running ones it may take their pages; below all of them it may fail.
    if (MakeRoom(s, count, &plan)) {
      Schedule(s, count, &plan);
    } else {
      Preempt(s, &plan);
    }
  }
  return plan;
}

void Scheduler::Complete(const StepPlan::Item& item) {
  Sequence* s = item.sequence;
  s->computed = item.first + item.count;
  if (!s->use_prefix || s->committed) return;
  const int full = std::min(s->computed, s->plain_tokens()) / kBlockTokens;
  const std::vector<Digest>& keys = s->BlockKeys();
  for (; s->registered_blocks < full; ++s->registered_blocks) {
    std::vector<PageId> pages;
    for (int layer = 0; layer < s->cache.layers(); ++layer)
      pages.push_back(s->cache.SlotOf(layer, s->registered_blocks * kBlockTokens).page);
    // Refused when the chain's parent is gone meanwhile (another sequence's copy was reclaimed).
    if (!prefix_->Insert(keys, s->registered_blocks, pages)) break;
  }
}

Compressed Scheduler::Compress(Sequence* s, TokenMover& mover, std::vector<Sequence*>* preempted) {
  const bool commit = s->commit_due(), evict = !commit && s->running && s->eviction_due();
  if (!commit && !evict && !(s->running && s->committed && s->computed >= s->exit_due)) return {};
  int64_t exited = 0;
  StepPlan plan;           // collects the preempted only
  Selection kept, pivots;  // of the commit, or kept alone, by index, of an eviction
  if (commit) {
    const std::vector<LayerStats> stats = s->stats.Layers();
    kept = s->policy->Select(s->view(), stats, arena_->geometry());
    pivots = s->policy->Pivots(kept, stats);
    if (s->keep_scores) s->scores = s->stats.Scores();
    if (!s->needs.attention_steps) s->stats.Clear();
  } else if (evict) {
    for (int layer = 0; layer < s->cache.layers(); ++layer) {
      kept.push_back(s->policy->Keep(s->stats.Columns(layer), s->token_limit()));
    }
  }
  // A commit goes few layers at a time: beside the old pages of those stand only their own new
  // ones; an eviction goes layer by layer. Exits are few tokens a layer and wait for those of other
  // sequences, if there is room.
  const int layers_at_once = std::max(1, s->cache.layers() / kCommitParts);
  for (int layer = 0; s->running && layer < s->cache.layers(); ++layer) {
    const LayerStorage storage = s->policy->Layer(layer);
    int64_t before = TokensOf(moves_);
    const auto change = [&] {
      if (commit) {
        return s->cache.Commit(layer, kept[layer], s->vision, storage, &moves_, pivots[layer]);
      }
      return evict ? s->cache.Evict(layer, kept[layer], s->vision, &moves_)
                   : s->cache.ExitWindow(layer, s->vision, storage, &moves_);
    };
    while (!change()) {
      if (!moving_.empty()) {
        FinishMoves(mover);
        before = 0;
        continue;
      }
      if (FreeSome(s, 1, &plan)) continue;
      Preempt(s, &plan);  // even alone there is no room now: it starts again later
      break;
    }
    if (!s->running) break;
    s->peak_bytes = std::max(s->peak_bytes, s->cache.bytes());
    exited += commit || evict ? 0 : TokensOf(moves_) - before;
    if (s->needs.attention_steps && (commit || evict)) s->stats.KeepColumns(layer, kept[layer]);
    // Evicted tokens move nowhere, but their pages are retired.
    if (moving_.empty() || moving_.back() != s) moving_.push_back(s);
    if (evict || (commit && (layer + 1) % layers_at_once == 0)) FinishMoves(mover);
  }
  preempted->insert(preempted->end(), plan.preempted.begin(), plan.preempted.end());
  s->committed = s->running;
  if (s->running) {
    int64_t next = std::numeric_limits<int>::max();
    for (int layer = 0; layer < s->cache.layers(); ++layer) {
      next = std::min<int64_t>(next, s->cache.TokensToExit(layer, s->policy->Layer(layer)));
    }
    s->exit_due = s->computed + next;
  }
  return {s->running && commit, static_cast<double>(exited) / s->cache.layers()};
}

void Scheduler::FinishMoves(TokenMover& mover) {
  while (!moves_.empty() && moves_.back().moves.empty()) moves_.pop_back();
  if (!moves_.empty()) mover.Move(moves_);
  for (Sequence* s : moving_) s->cache.FinishMoves();
  // Memory stays for the next part of a commit.
  for (MoveBatch& batch : moves_) batch.moves.clear();
  moving_.clear();
}

}  // namespace tessera
