#include "engine/runtime/scheduler.h"

#include <algorithm>

#include "base/base.h"

namespace tessera {
namespace {

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

}  // namespace

void Scheduler::Add(Sequence* sequence) { InsertByRank(waiting_, sequence); }

void Scheduler::Remove(Sequence* sequence) {
  TESSERA_CHECK(Erase(sequence->running ? running_ : waiting_, sequence));
  sequence->running = false;
  cache_->Free(sequence);
}

SchedulerOutput Scheduler::Schedule() {
  SchedulerOutput out;
  ScheduleRunning(/*decodes=*/true, &out);
  ScheduleRunning(/*decodes=*/false, &out);
  // New sequences come in only while memory is not contended.
  if (out.preempted.empty()) ScheduleWaiting(&out);
  return out;
}

void Scheduler::ScheduleRunning(bool decodes, SchedulerOutput* out) {
  const std::vector<Sequence*> candidates = running_;  // a copy: preemption edits running_
  for (Sequence* s : candidates) {
    const int room = limits_.max_batch_tokens - out->rows;
    if (room <= 0) break;
    if ((s->to_compute() == 1) != decodes) continue;
    if (!s->running || s->blocked) continue;  // not running: preempted in this call
    ScheduleItem(s, std::min(s->NextChunk(), room), out);
  }
}

void Scheduler::ScheduleWaiting(SchedulerOutput* out) {
  while (!waiting_.empty() && out->rows < limits_.max_batch_tokens) {
    Sequence* s = waiting_.front();
    if (s->blocked) break;  // preempted; a step in flight will tell whether it has ended
    if (running() >= limits_.max_sequences || !TryAdmit(s)) {
      // A higher priority may push a lower one out.
      if (running_.empty() || running_.back()->priority >= s->priority) break;
      PreemptInto(running_.back(), out);
      continue;
    }
    waiting_.erase(waiting_.begin());
    out->admitted.push_back(s);
    ScheduleItem(s, std::min(s->NextChunk(), limits_.max_batch_tokens - out->rows), out);
  }
}

void Scheduler::ScheduleItem(Sequence* sequence, int count, SchedulerOutput* out) {
  while (!cache_->Allocate(sequence, count)) {
    Sequence* victim = running_.back();
    PreemptInto(victim, out);
    if (victim == sequence) return;
  }
  const int first = sequence->computed;
  const bool sample = first + count == sequence->known_tokens();
  out->items.push_back({sequence, first, count, sample});
  out->rows += count;
}

bool Scheduler::TryAdmit(Sequence* sequence) {
  const KvCacheManager::PrefixHit hit = cache_->AdoptPrefix(sequence);
  if (!running_.empty()) {
    // Running sequences still need pages for their known tokens, and one page a layer for the next.
    int64_t promised = 0;
    for (const Sequence* s : running_) {
      promised += s->cache.PagesToExtend(s->known_tokens() - s->cache.length()) + s->cache.layers();
    }
    const int remaining = sequence->known_tokens() - sequence->cache.length();
    if (sequence->cache.PagesToExtend(remaining) + promised > cache_->available_pages()) {
      cache_->Free(sequence);
      return false;
    }
  }
  sequence->computed = hit.tokens;
  sequence->registered_blocks = hit.tokens / kBlockTokens;
  if (!sequence->was_admitted) {
    sequence->cached_tokens = std::min(hit.tokens, sequence->prompt_tokens);
    sequence->recomputed_tokens = hit.recomputed_tokens;
  }
  sequence->was_admitted = true;
  sequence->running = true;
  InsertByRank(running_, sequence);
  return true;
}

void Scheduler::Advance(const SchedulerOutput::Item& item) {
  item.sequence->computed = item.first + item.count;
  cache_->CacheBlocks(item.sequence);
}

bool Scheduler::FreePagesFor(Sequence* sequence, std::vector<Sequence*>* preempted) {
  if (cache_->Evict(1)) return true;
  Sequence* victim = running_.back();
  if (victim == sequence) return false;
  Preempt(victim);
  preempted->push_back(victim);
  return true;
}

void Scheduler::Preempt(Sequence* sequence) {
  TESSERA_CHECK(Erase(running_, sequence));
  cache_->Free(sequence);
  sequence->running = false;
  sequence->computed = 0;
  sequence->committed = false;
  sequence->statistics.Clear();
  sequence->registered_blocks = 0;
  ++sequence->preemptions;
  InsertByRank(waiting_, sequence);
}

void Scheduler::PreemptInto(Sequence* sequence, SchedulerOutput* out) {
  const auto item = std::find_if(out->items.begin(), out->items.end(),
                                 [&](const auto& i) { return i.sequence == sequence; });
  if (item != out->items.end()) {
    out->rows -= item->count;
    out->items.erase(item);
  }
  Preempt(sequence);
  out->preempted.push_back(sequence);
}

}  // namespace tessera
