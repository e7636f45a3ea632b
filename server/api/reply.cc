#include "server/api/reply.h"

#include <algorithm>

#include "engine/text/utf8.h"

namespace tessera {
namespace {

void ConvertUsage(const Usage& in, v1::Usage* out) {
  out->set_prompt_tokens(in.prompt_tokens);
  out->set_image_tokens(in.image_tokens);
  out->set_cached_tokens(in.cached_tokens);
  out->set_recomputed_tokens(in.recomputed_tokens);
  out->set_output_tokens(in.output_tokens);
  out->set_preemptions(in.preemptions);
  out->set_kv_bytes(in.kv_bytes);
  out->set_kv_bytes_peak(in.kv_bytes_peak);
  out->set_kv_mean_bits(in.kv_mean_bits);
  out->set_kv_bytes_per_token(in.kv_bytes_per_token);
  out->set_kv_policy(in.policy);
  out->set_evicted_text_tokens(in.evicted_text);
  out->set_evicted_image_tokens(in.evicted_vision);
  v1::StageTimes* times = out->mutable_times();
  times->set_image_decode(in.image_decode_seconds);
  times->set_queue(in.queue_seconds);
  times->set_vision_encode(in.vision_seconds);
  times->set_prefill(in.prefill_seconds);
  times->set_decode(in.decode_seconds);
  times->set_time_to_first_token(in.first_token_seconds);
  times->set_total(in.total_seconds);
}

}  // namespace

bool ConvertDelta(const Event& event, const ReplyOptions& options, const Tokenizer& tokenizer,
                  v1::TokenDelta* out) {
  if (event.text.empty() && event.ids.empty()) return false;
  out->set_text(event.text);
  out->set_tokens(static_cast<int32_t>(event.ids.size()));
  if (options.token_ids) {
    out->mutable_token_ids()->Add(event.ids.begin(), event.ids.end());
  }
  if (!options.logprobs) return true;
  for (const TokenLogprob& in : event.logprobs) {
    v1::TokenLogprob* logprob = out->add_logprobs();
    logprob->set_token_id(in.id);
    logprob->set_logprob(in.logprob);
    for (const auto& [id, value] : in.top) {
      auto* candidate = logprob->add_top();
      candidate->set_token_id(id);
      candidate->set_logprob(value);
      candidate->set_text(TokenText(tokenizer, id));
    }
  }
  return true;
}

void ConvertFinished(const Event& event, v1::Finished* out) {
  out->set_reason(event.reason == FinishReason::kLength ? v1::Finished::REASON_LENGTH
                                                        : v1::Finished::REASON_STOP);
  if (!event.stop_string.empty()) {
    out->set_stop_string(event.stop_string);
  } else if (event.stop_id >= 0) {
    out->set_stop_token_id(event.stop_id);
  }
  ConvertUsage(event.usage, out->mutable_usage());
}

void ConvertExplanation(const Explanation& in, const ProcessorConfig& processor,
                        const Tokenizer& tokenizer, v1::Explanation* out) {
  for (int f = 0; f < kNumFormats; ++f) {
    const FormatSpec& spec = SpecOf(static_cast<Format>(f));
    v1::Explanation::Format* format = out->add_formats();
    format->set_name(spec.name);
    format->set_k_bits(spec.k.bits);
    format->set_v_bits(spec.v.bits);
    format->set_bytes_per_token(in.bytes_per_token[f]);
  }
  for (const Explanation::Layer& layer : in.layers) {
    v1::Explanation::Layer* wire = out->add_layers();
    wire->set_stored(std::string(layer.stored.begin(), layer.stored.end()));
    wire->set_bytes(layer.bytes);
    wire->mutable_score()->Add(layer.scores.begin(), layer.scores.end());
  }
  std::vector<bool> is_image(in.tokens.size());
  for (const Explanation::Span& span : in.images) {
    v1::Explanation::ImageTokens* image = out->add_images();
    image->set_first(span.begin);
    image->set_count(span.tokens);
    std::fill_n(is_image.begin() + span.begin, span.tokens, true);
  }
  out->set_image_fit(processor.do_pad       ? v1::Explanation::IMAGE_FIT_CONTAIN
                     : processor.squash > 0 ? v1::Explanation::IMAGE_FIT_STRETCH
                                            : v1::Explanation::IMAGE_FIT_COVER);
  out->set_commit_tokens(in.commit_tokens);
  out->set_score(in.score_name);
  for (size_t i = 0; i < in.tokens.size(); ++i) {
    out->add_text(is_image[i] ? std::string() : TokenText(tokenizer, in.tokens[i]));
  }
}

std::string TokenText(const Tokenizer& tokenizer, int32_t id) {
  const std::string bytes = tokenizer.TokenBytes(id);
  if (!bytes.empty() && IsValidUtf8(bytes)) return bytes;
  const std::string piece = tokenizer.Piece(id);
  return IsValidUtf8(piece) ? piece : std::string();
}

}  // namespace tessera
