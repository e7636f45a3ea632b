// One live request inside the engine: its sequence, sampler, detokenizer, stop strings and times.
//
// Threads: the engine's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/request/output_queue.h"
#include "engine/request/request.h"
#include "engine/runtime/sequence.h"
#include "engine/sampling/sampler.h"
#include "engine/text/stop_matcher.h"
#include "engine/text/tokenizer.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

// The model's facts that end or bound a generation. All requests share one, which the engine owns.
struct GenerationRules {
  const Tokenizer* tokenizer = nullptr;
  std::vector<int32_t> eos;     // end-of-sequence ids
  std::vector<int32_t> banned;  // never sampled: ids without text, image and padding tokens
  int context_tokens = 0;
};

class RequestState {
 public:
  RequestState(Request request, std::shared_ptr<OutputQueue> output_queue,
               const GenerationRules* rules, Arena* arena, int64_t arrival);

  // How the next token is sampled, and the sparse edits of its logits in row `row` of the step's
  // sampled rows.
  SampleRule Rule() const { return sampler_.RuleAt(sampled_tokens()); }
  void AddEdit(int row, LogitEdits* out) const;
  // Whether the next token ends the generation, whichever it is.
  bool next_is_last() const;
  // Appends the sampled token to the sequence. `logprobs` [1 + request().top_logprobs] as
  // Ops::Logprobs gives them, if the request wants any. Returns the event for the reader; done=true
  // when the generation ended with this token.
  Event Append(int32_t id, const LogprobAt* logprobs);

  const Request& request() const { return request_; }
  OutputQueue& output_queue() { return *output_queue_; }
  Sequence& sequence() { return sequence_; }
  const Sequence& sequence() const { return sequence_; }
  int output_tokens() const { return output_tokens_; }
  // Output tokens, and the one that a step in flight samples.
  int sampled_tokens() const { return output_tokens_ + (sequence_.pending_sample >= 0 ? 1 : 0); }

  // Usage as of now; the engine fills in the times it alone knows.
  Usage MakeUsage() const;

  // Features of each image of the prompt. Null before they are needed and once its rows are in a
  // batch.
  std::vector<std::shared_ptr<const ImageFeatures>> features;

  // Clock readings of the engine loop.
  absl::Time submitted, first_scheduled, first_token, last_token;
  double vision_seconds = 0;

 private:
  bool IsStopId(int32_t id) const;
  // Adds text to the event through the stop matcher; true: a stop string ended the generation.
  bool AddText(absl::string_view text, Event* event);

  Request request_;
  std::shared_ptr<OutputQueue> output_queue_;
  const GenerationRules* rules_;
  Sequence sequence_;
  Sampler sampler_;
  Detokenizer detokenizer_;
  StopMatcher stops_;
  int output_tokens_ = 0;
};

}  // namespace tessera
