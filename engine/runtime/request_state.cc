#include "engine/runtime/request_state.h"

#include <algorithm>
#include <cstring>

#include "base/digest.h"

namespace tessera {
namespace {

// Without a seed the draw still depends on nothing but the request.
uint64_t SeedOf(const Request& request) {
  if (request.sampling.has_seed) return request.sampling.seed;
  const Digest d = Hasher().AddString(request.id).Finish();
  uint64_t seed;
  std::memcpy(&seed, d.data(), sizeof seed);
  return seed;
}

// Returns the tokens that are not sampled before min_tokens.
std::vector<int32_t> EndsOf(const Request& request, const GenerationRules& rules) {
  std::vector<int32_t> ends = request.stop.token_ids;
  ends.insert(ends.end(), rules.eos.begin(), rules.eos.end());
  return ends;
}

}  // namespace

RequestState::RequestState(Request request, std::shared_ptr<OutputQueue> output_queue,
                           const GenerationRules* rules, Arena* arena, int64_t arrival)
    : request_(std::move(request)),
      output_queue_(std::move(output_queue)),
      rules_(rules),
      sequence_(arena, request_.prompt, *request_.policy, request_.priority, arrival),
      sampler_(request_.sampling, SeedOf(request_), EndsOf(request_, *rules)),
      detokenizer_(rules->tokenizer),
      stops_(request_.stop.strings, request_.stop.include_stop) {
  features.resize(request_.prompt.images.size());
  for (const int32_t id : request_.prompt.ids) sampler_.AddPromptToken(id);
}

bool RequestState::IsStopId(int32_t id) const {
  const auto in = [id](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  return in(request_.stop.token_ids) || (!request_.stop.ignore_eos && in(rules_->eos));
}

void RequestState::AddEdit(int row, LogitEdits* out) const {
  sampler_.AddEdit(row, sampled_tokens() < request_.stop.min_tokens, sequence_.pending_sample, out);
}

bool RequestState::next_is_last() const {
  return sampled_tokens() + 1 >= request_.stop.max_tokens ||
         sequence_.known_tokens() + 1 >= rules_->context_tokens;
}

Event RequestState::Append(int32_t id, const LogprobAt* logprobs) {
  Event event;
  if (request_.top_logprobs >= 0) {
    TokenLogprob& own = event.logprobs.emplace_back();
    own.id = logprobs[0].id;
    own.logprob = logprobs[0].logprob;
    for (int i = 1; i <= request_.top_logprobs && logprobs[i].id >= 0; ++i) {
      own.top.emplace_back(logprobs[i].id, logprobs[i].logprob);
    }
  }
  event.ids.push_back(id);
  sampler_.AddOutputToken(id);
  sequence_.tokens.push_back(id);
  ++output_tokens_;

  const bool stop_id = IsStopId(id);
  if (!stop_id) {
    // Stop strings count from min_tokens on; text before that goes through as it is.
    const std::string text = detokenizer_.Add(id);
    if (output_tokens_ < request_.stop.min_tokens) {
      event.text = text;
    } else if (AddText(text, &event)) {
      return event;
    }
  }
  const bool length = output_tokens_ >= request_.stop.max_tokens ||
                      sequence_.known_tokens() >= rules_->context_tokens;
  if (!stop_id && !length) return event;
  event.done = true;
  event.reason = stop_id ? FinishReason::kStop : FinishReason::kLength;
  if (stop_id) event.stop_id = id;
  if (!AddText(detokenizer_.Finish(), &event)) event.text += stops_.Finish();
  return event;
}

bool RequestState::AddText(absl::string_view text, Event* event) {
  StopMatcher::Result match = stops_.Add(text);
  event->text += match.text;
  if (match.matched < 0) return false;
  event->done = true;
  event->reason = FinishReason::kStop;
  event->stop_id = -1;
  event->stop_string = stops_.stop(match.matched);
  return true;
}

Usage RequestState::MakeUsage() const {
  Usage usage;
  usage.prompt_tokens = sequence_.prompt_tokens;
  usage.image_tokens = request_.prompt.image_tokens;
  usage.cached_tokens = sequence_.cached_tokens;
  usage.recomputed_tokens = sequence_.recomputed_tokens;
  usage.output_tokens = output_tokens_;
  usage.preemptions = sequence_.preemptions;
  usage.kv_bytes = sequence_.cache.bytes();
  usage.kv_bytes_peak = sequence_.peak_bytes;
  if (sequence_.cache.length() > 0) {
    usage.kv_mean_bits = sequence_.cache.MeanBits();
    usage.kv_bytes_per_token = static_cast<double>(usage.kv_bytes) / sequence_.cache.length();
    const double layers = sequence_.cache.layers();
    usage.evicted_text = static_cast<double>(sequence_.cache.evicted().text) / layers;
    usage.evicted_vision = static_cast<double>(sequence_.cache.evicted().vision) / layers;
  }
  usage.policy = request_.policy->Text();
  usage.image_decode_seconds = request_.image_decode_seconds;
  usage.vision_seconds = vision_seconds;
  return usage;
}

}  // namespace tessera
