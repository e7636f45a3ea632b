// Engine::Loop's part that turns a step's answers into events for the readers.
#include <utility>

#include "engine/engine_loop.h"
#include "engine/explanation.h"

namespace tessera {

void Engine::Loop::Emit(const StepPlan& plan, LlavaModel::Answers answers) {
  const int64_t vocab = model_->config().text.vocab;
  for (const StepPlan::Item& item : plan.items) {
    if (!item.sample) continue;
    Generation& g = Of(item.sequence);
    Event event;
    if (g.wants_logits()) {
      row_logits_.assign(answers.logits, answers.logits + vocab);
      answers.logits += vocab;
      event = g.Advance(absl::MakeSpan(row_logits_));
    } else {
      event = g.Append(*answers.tokens++);
    }
    const absl::Time now = SteadyNow();
    if (g.output_tokens() == 1) {
      g.first_token = now;
      observer_->OnFirstToken(g.request(), absl::ToDoubleSeconds(now - g.request().received));
    } else {
      observer_->OnInterToken(absl::ToDoubleSeconds(now - g.last_token));
    }
    g.last_token = now;
    if (event.done) {
      Finish(g, std::move(event), now);
    } else {
      deliveries_.push_back({&g, std::move(event), now});
    }
  }
}

void Engine::Loop::Deliver() {
  for (Delivery& d : deliveries_) d.to->outbox().Put(std::move(d.event), d.drawn);
  deliveries_.clear();
}

void Engine::Loop::Finish(Generation& generation, Event event, absl::Time now) {
  Deliver();  // what this one was not yet told comes first
  const Request& request = generation.request();
  event.done = true;
  Usage& usage = event.usage = generation.MakeUsage();
  if (request.explain && event.status.ok()) {
    event.explanation = std::make_shared<const Explanation>(Explain(generation.sequence(), arena_));
  }
  const auto seconds = [](absl::Time from, absl::Time to) {
    return from == absl::Time() || to == absl::Time() ? 0.0 : absl::ToDoubleSeconds(to - from);
  };
  const absl::Time scheduled = generation.first_scheduled;
  usage.queue_seconds = seconds(generation.submitted, scheduled == absl::Time() ? now : scheduled);
  usage.prefill_seconds = seconds(scheduled, generation.first_token);
  usage.decode_seconds = seconds(generation.first_token, generation.last_token);
  usage.first_token_seconds = seconds(request.received, generation.first_token);
  usage.total_seconds = seconds(request.received, now);

  // Freed before the reader hears of it: a client that saw the end finds the memory free.
  const int64_t arrival = generation.sequence().arrival;
  scheduler_.Remove(&generation.sequence());
  observer_->OnFinished(request, event);
  {
    MutexLock lock(mutex_);
    ids_.erase(request.id);
    if (ids_.empty()) idle_.notify_all();
  }
  generation.outbox().Put(std::move(event), now);
  by_sequence_.erase(&generation.sequence());
  live_.erase(arrival);
}

}  // namespace tessera
