// Plain structs of a request and its events: the vocabulary between server and engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cache/policy/policy.h"
#include "vision/processor/processor.h"

namespace tessera {

struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the token's logit
  bool has_seed = false;
  uint64_t seed = 0;
};

struct StopParams {
  int max_tokens = 0;  // > 0 after validation
  int min_tokens = 0;
  std::vector<std::string> strings;
  std::vector<int32_t> token_ids;  // in addition to the model's end-of-sequence ids
  bool ignore_eos = false;
  bool include_stop = false;  // keep the matched string in the text
};

constexpr int kMaxStopStrings = 16;
constexpr size_t kMaxStopStringBytes = 256;
constexpr int kMaxStopIds = 64;
constexpr int kMaxTopLogprobs = 20;
constexpr size_t kMaxLogitBiases = 1024;

// Checks every value that does not depend on the model. Returns the first error, with its field
// (field_error.h). `top_logprobs` is the client's value if it gave one.
absl::Status Validate(const SamplingParams& sampling, const StopParams& stop,
                      std::optional<int> top_logprobs = std::nullopt);

// A prompt ready to run: image tokens are expanded, images prepared.
struct Prompt {
  struct ImageSpan {
    int32_t begin = 0;  // first token index; covers model.tokens_per_image tokens
    std::shared_ptr<const PreparedImage> image;
  };
  std::vector<int32_t> ids;
  std::vector<ImageSpan> images;  // ordered by begin
  int32_t image_tokens = 0;
};

struct Request {
  std::string id;
  Prompt prompt;
  SamplingParams sampling;
  StopParams stop;
  std::shared_ptr<const Policy> policy;
  // The policy compresses once this many of the prompt's tokens are computed. Later tokens read the
  // compressed cache. No image may follow this point. 0: the whole prompt.
  int commit_tokens = 0;
  bool explain = false;  // give Event::explanation
  bool bypass_prefix = false;
  std::string salt;
  int priority = 0;
  int top_logprobs = -1;                       // -1: none; 0: the token's own; else candidates too
  absl::Time received = absl::InfinitePast();  // SteadyNow's
  absl::Time deadline = absl::InfiniteFuture();  // SteadyNow's
  double image_decode_seconds = 0;
};

struct Explanation;  // explanation.h

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};

enum class FinishReason { kNone, kStop, kLength };

struct Usage {
  int prompt_tokens = 0, image_tokens = 0, cached_tokens = 0, output_tokens = 0, preemptions = 0;
  int recomputed_tokens =
      0;  // found in the prefix index, but run again for the policy's statistics
  int64_t kv_bytes = 0, kv_bytes_peak = 0;
  double kv_mean_bits = 0;                      // per stored value, metadata included
  double evicted_text = 0, evicted_vision = 0;  // tokens, mean over layers
  double kv_bytes_per_token = 0;
  std::string policy;
  double image_decode_seconds = 0, queue_seconds = 0, vision_seconds = 0, prefill_seconds = 0,
         decode_seconds = 0, first_token_seconds = 0, total_seconds = 0;
};

// One event of a request. A reader gets deltas, then exactly one event with `done`.
struct Event {
  std::string text;  // valid UTF-8
  std::vector<int32_t> ids;
  std::vector<TokenLogprob> logprobs;
  bool done = false;
  // With done only. A non-OK status (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, INTERNAL) means the
  // request did not finish; reason is then kNone.
  absl::Status status;
  FinishReason reason = FinishReason::kNone;
  int32_t stop_id = -1;
  std::string stop_string;
  Usage usage;
  std::shared_ptr<const Explanation> explanation;  // null unless asked for and finished
};

}  // namespace tessera
