#include "engine/runtime/output_processor.h"

#include <memory>
#include <utility>

#include "base/clock.h"
#include "engine/runtime/explain.h"

namespace tessera {

std::vector<OutputProcessor::Ended> OutputProcessor::Process(const InFlightStep& step,
                                                             const LlavaModel::Output& output) {
  std::vector<Ended> ended;
  auto job = step.batch.logprobs.begin();
  const LogprobAt* next_logprobs = output.logprobs;
  int place = 0;
  for (const SchedulerOutput::Item& item : step.scheduled.items) {
    if (!item.sample) continue;
    const int32_t token = output.tokens[place];
    const LogprobAt* logprobs = nullptr;
    if (job != step.batch.logprobs.end() && job->sampled == place) {
      ++job;
      logprobs = next_logprobs;
      next_logprobs += step.batch.logprob_places;
    }
    ++place;
    if (!requests_->Contains(item.sequence)) continue;
    item.sequence->pending_sample = -1;
    item.sequence->blocked = false;
    Append(requests_->Of(item.sequence), token, logprobs, &ended);
  }
  return ended;
}

void OutputProcessor::Append(RequestState& request, int32_t token, const LogprobAt* logprobs,
                             std::vector<Ended>* ended) {
  Event event = request.Append(token, logprobs);
  const absl::Time now = SteadyNow();
  if (request.output_tokens() == 1) {
    request.first_token = now;
    observer_->OnFirstToken(request.request(),
                            absl::ToDoubleSeconds(now - request.request().received));
  } else {
    observer_->OnInterToken(absl::ToDoubleSeconds(now - request.last_token));
  }
  request.last_token = now;
  if (event.done) {
    ended->push_back({&request, std::move(event)});
  } else {
    kept_.push_back({&request, std::move(event), now});
  }
}

void OutputProcessor::MarkPending(const InFlightStep& step) {
  int place = 0;
  for (const SchedulerOutput::Item& item : step.scheduled.items) {
    if (!item.sample) continue;
    if (requests_->Contains(item.sequence)) {
      item.sequence->blocked |= requests_->Of(item.sequence).next_is_last();
      item.sequence->pending_sample = place;
    }
    ++place;
  }
}

void OutputProcessor::Flush() {
  for (Kept& kept : kept_) {
    kept.request->output_queue().Put(std::move(kept.event), kept.sampled);
  }
  kept_.clear();
}

void OutputProcessor::Complete(const RequestState& state, const Arena& arena, absl::Time now,
                               Event* last) const {
  const Request& request = state.request();
  last->done = true;
  Usage& usage = last->usage = state.MakeUsage();
  if (request.explain && last->status.ok()) {
    last->explanation = std::make_shared<const Explanation>(Explain(state.sequence(), arena));
  }
  const auto seconds = [](absl::Time from, absl::Time to) {
    return from == absl::Time() || to == absl::Time() ? 0.0 : absl::ToDoubleSeconds(to - from);
  };
  const absl::Time scheduled = state.first_scheduled;
  usage.queue_seconds = seconds(state.submitted, scheduled == absl::Time() ? now : scheduled);
  usage.prefill_seconds = seconds(scheduled, state.first_token);
  usage.decode_seconds = seconds(state.first_token, state.last_token);
  usage.first_token_seconds = seconds(request.received, state.first_token);
  usage.total_seconds = seconds(request.received, now);
}

}  // namespace tessera
