#include "engine/generation.h"

#include <algorithm>
#include <cstring>

#include "kernels/digest.h"

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

bool UsesPenalties(const SamplingParams& p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}

}  // namespace

Generation::Generation(Request request, std::shared_ptr<Outbox> outbox,
                       const GenerationRules* rules, Arena* arena, int64_t arrival)
    : request_(std::move(request)),
      outbox_(std::move(outbox)),
      rules_(rules),
      sequence_(arena, request_.prompt, *request_.policy, request_.priority, arrival),
      sampler_(request_.sampling, SeedOf(request_), &rules->banned),
      detokenizer_(rules->tokenizer),
      stops_(request_.stop.strings, request_.stop.include_stop) {
  features.resize(request_.prompt.images.size());
  if (UsesPenalties(request_.sampling))
    for (const int32_t id : request_.prompt.ids) sampler_.AddPromptToken(id);
}

bool Generation::IsStopId(int32_t id) const {
  const auto in = [id](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  return in(request_.stop.token_ids) || (!request_.stop.ignore_eos && in(rules_->eos));
}

std::vector<int32_t> Generation::BannedNow() const {
  if (output_tokens_ >= request_.stop.min_tokens) return {};
  std::vector<int32_t> banned = request_.stop.token_ids;
  banned.insert(banned.end(), rules_->eos.begin(), rules_->eos.end());
  return banned;
}

bool Generation::wants_logits() const {
  return request_.top_logprobs >= 0 || drawn_tokens() < request_.stop.min_tokens ||
         !sampler_.only_draws();
}

bool Generation::next_is_last() const {
  return drawn_tokens() + 1 >= request_.stop.max_tokens ||
         sequence_.known_tokens() + 1 >= rules_->context_tokens;
}

Event Generation::Advance(absl::Span<float> logits) {
  Event event;
  std::vector<float> raw;
  if (request_.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());
  const int32_t id = sampler_.Sample(logits, BannedNow(), output_tokens_);
  if (request_.top_logprobs >= 0)
    event.logprobs.push_back(ComputeLogprob(raw, id, request_.top_logprobs));
  Append(id, &event);
  return event;
}

Event Generation::Append(int32_t id) {
  Event event;
  Append(id, &event);
  return event;
}

void Generation::Append(int32_t id, Event* event) {
  event->ids.push_back(id);
  sampler_.AddOutputToken(id);
  sequence_.tokens.push_back(id);
  ++output_tokens_;

  const bool stop_id = IsStopId(id);
  if (!stop_id) {
    // Stop strings count from min_tokens on; text before that goes through as it is.
    const std::string text = detokenizer_.Add(id);
    if (output_tokens_ < request_.stop.min_tokens) {
      event->text = text;
    } else if (AddText(text, event)) {
      return;
    }
  }
  const bool length = output_tokens_ >= request_.stop.max_tokens ||
                      sequence_.known_tokens() >= rules_->context_tokens;
  if (!stop_id && !length) return;
  event->done = true;
  event->reason = stop_id ? FinishReason::kStop : FinishReason::kLength;
  if (stop_id) event->stop_id = id;
  if (!AddText(detokenizer_.Finish(), event)) event->text += stops_.Finish();
}

bool Generation::AddText(absl::string_view text, Event* event) {
  StopMatcher::Result match = stops_.Add(text);
  event->text += match.text;
  if (match.matched < 0) return false;
  event->done = true;
  event->reason = FinishReason::kStop;
  event->stop_id = -1;
  event->stop_string = stops_.stop(match.matched);
  return true;
}

Usage Generation::MakeUsage() const {
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
