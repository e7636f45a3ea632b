// What the scheduler knows of one request: its tokens, how many of them are computed, its cache and
// the policy that compresses it.
//
// Plain state, no behaviour that needs a device or a clock. A sequence is waiting (holds no pages),
// running, or gone; `computed` tokens have their K and V in `cache`, the rest are still to run. A
// decode step is simply the case tokens.size() - computed == 1.
// Ownership: owned by the engine loop; the scheduler holds pointers between Add and Remove.
// Threads: one thread (the engine's).
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

  // Tokens up to here are computed over 16-bit pages alone: what the prefix index takes and gives.
  int plain_tokens() const {
    return policy->compresses() ? commit_tokens : static_cast<int>(tokens.size());
  }
  // How many of the tokens to compute may run in one step. A chunk ends at the commit, and where
  // tokens leave a window or the cache: so every token sees the runs that it would see if all ran
  // one by one.
  int NextChunk() const;
  // What the policy decides about at the commit.
  PromptView view() const { return {absl::MakeConstSpan(vision).first(commit_tokens)}; }
  // The tokens of a layer that the policy keeps while more are added; 0: all.
  int64_t token_limit() const { return policy->TokenLimit(view(), cache.geometry()); }
  // So many stand beside them that some leave.
  bool eviction_due() const {
    return committed && needs.attention_steps && cache.stored(0) >= token_limit() + kEvictTokens;
  }
  // All of that is computed and waits for the policy's answer.
  bool commit_due() const {
    return running && policy->compresses() && !committed && computed >= commit_tokens;
  }

  // Tokens that may run: all of `tokens`, and the awaited one.
  int known_tokens() const { return static_cast<int>(tokens.size()) + (awaited >= 0 ? 1 : 0); }
  int to_compute() const { return known_tokens() - computed; }
  // Keys of all full blocks of `tokens`; extended as tokens are appended.
  const std::vector<Digest>& BlockKeys();

  const Prompt* prompt;         // not owned
  const Policy* policy;         // not owned
  PolicyNeeds needs;            // the policy's
  std::vector<uint8_t> vision;  // [prompt_tokens] not 0: an image's token
  int priority;
  int64_t arrival;              // unique; order of submission
  std::vector<int32_t> tokens;  // prompt, then output
  int prompt_tokens;
  int commit_tokens;  // 1 to prompt_tokens (the default): the policy answers once these are
                      // computed
  // A step that still runs draws the token after `tokens`: its place among those that the step
  // draws, else -1. The next step may already run it.
  int awaited = -1;
  // No step may run the sequence before that step's answers are here: its next token is the last
  // one, or its policy decides by what the step measures.
  bool held = false;
  int computed = 0;
  bool committed = false;  // the policy has answered: the pages of those tokens are compressed
  bool running = false;    // kept by the scheduler
  int64_t exit_due = 0;    // likewise, once committed: tokens leave the window at so many computed
  bool use_prefix = false;
  Digest prefix_root{};  // when use_prefix

  SequenceCache cache;
  PromptStats stats;          // until the commit, or where tokens leave later, to the end
  bool keep_scores = false;   // for an explanation
  TokenScores scores;         // when keep_scores, from the commit on
  int cached_tokens = 0;      // of the prompt, found in the prefix index at the first admission
  int recomputed_tokens = 0;  // likewise, but run again because the policy needs their statistics
  bool was_admitted = false;
  int preemptions = 0;
  int registered_blocks = 0;  // full blocks already offered to the prefix index
  int64_t peak_bytes = 0;

 private:
  std::vector<Digest> block_keys_;
};

// [prompt tokens] Not 0 where an image's token stands, and never the same for two neighbours.
std::vector<uint8_t> VisionFlags(const Prompt& prompt);

// Tokens that `prompt` (its image spans) and later output give as prefix tokens [first, last).
std::vector<PrefixToken> PrefixTokens(const Prompt& prompt, const std::vector<int32_t>& tokens,
                                      int first, int last);

}  // namespace tessera
