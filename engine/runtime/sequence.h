// The scheduler's view of one request: its tokens, how many of them are computed, its block tables
// and the policy that compresses them.
//
// Plain state without a device or a clock. A sequence is waiting (it holds no pages), running, or
// gone. `computed` tokens have their K and V in `cache`; the others are still to run. A decode step
// is the case tokens.size() - computed == 1.
// Ownership: owned by its RequestState; the scheduler holds pointers between Add and Remove.
// Threads: the engine's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache/policy/policy.h"
#include "cache/prefix_cache.h"
#include "cache/sequence_cache.h"
#include "engine/request/request.h"
#include "engine/statistics/prompt_statistics.h"

namespace tessera {

struct Sequence {
  Sequence(Arena* arena, const Prompt& prompt, const Policy& policy, int priority, int64_t arrival);

  // Tokens up to here are computed over 16-bit pages alone, so the prefix cache may hold them.
  int plain_tokens() const {
    return policy->compresses() ? commit_tokens : static_cast<int>(tokens.size());
  }
  // How many of the tokens to compute may run in one step. A chunk ends at the commit point, and
  // where tokens leave the window or the cache. So every token sees the pages that it would see if
  // all tokens ran one by one.
  int NextChunk() const;
  // The tokens that the policy decides about at the commit.
  PromptView view() const { return {absl::MakeConstSpan(vision).first(commit_tokens)}; }
  // How many tokens of a layer the policy keeps while more are added; 0: all.
  int64_t token_limit() const { return policy->TokenLimit(view(), cache.geometry()); }
  // Enough tokens exceed the limit for a page of them to be evicted.
  bool eviction_due() const {
    return committed && needs.attention_steps && cache.stored(0) >= token_limit() + kEvictTokens;
  }
  // All tokens up to the commit point are computed, and the policy has not decided yet.
  bool commit_due() const {
    return running && policy->compresses() && !committed && computed >= commit_tokens;
  }

  // Tokens that may run: all of `tokens`, and the one that a step in flight samples.
  int known_tokens() const {
    return static_cast<int>(tokens.size()) + (pending_sample >= 0 ? 1 : 0);
  }
  int to_compute() const { return known_tokens() - computed; }
  // Keys of all full blocks of `tokens`; extended as tokens are appended.
  const std::vector<Digest>& BlockKeys();

  const Prompt* prompt;         // not owned
  const Policy* policy;         // not owned
  PolicyNeeds needs;            // the policy's
  std::vector<uint8_t> vision;  // [prompt_tokens] as VisionFlags
  int priority;
  int64_t arrival;              // unique; order of submission
  std::vector<int32_t> tokens;  // prompt, then output
  int prompt_tokens;
  int commit_tokens;  // 1 to prompt_tokens (the default): the policy decides once these are
                      // computed
  // A placeholder for the token after `tokens` while a step in flight samples it: its index among
  // the step's samples, else -1. The next step may already run it.
  int pending_sample = -1;
  // No step may run the sequence before the outputs of the step in flight are here: its next token
  // is the last one, or its policy decides by what that step measures.
  bool blocked = false;
  int computed = 0;
  bool committed = false;  // the policy has decided: the pages of those tokens are compressed
  bool running = false;    // set by the scheduler
  int64_t next_exit = 0;   // once committed: tokens leave the window at this computed count
  bool use_prefix = false;
  Digest prefix_root{};  // when use_prefix

  SequenceCache cache;
  PromptStatistics statistics;  // those that the policy needs
  bool keep_scores = false;     // for an explanation
  TokenScores scores;           // when keep_scores, from the commit on
  int cached_tokens = 0;        // of the prompt, found in the prefix cache at the first admission
  int recomputed_tokens = 0;    // found as well, but run because the policy needs their statistics
  bool was_admitted = false;
  int preemptions = 0;
  int registered_blocks = 0;  // full blocks already offered to the prefix cache
  int64_t peak_bytes = 0;

 private:
  std::vector<Digest> block_keys_;
};

// Marks image tokens: [prompt tokens], 0 for text, and for an image's tokens a number that differs
// from those of the neighbouring images.
std::vector<uint8_t> VisionFlags(const Prompt& prompt);

// Returns tokens [first, last) as the prefix cache hashes them: ids, and for an image's tokens its
// digest.
std::vector<PrefixToken> PrefixTokens(const Prompt& prompt, const std::vector<int32_t>& tokens,
                                      int first, int last);

}  // namespace tessera
