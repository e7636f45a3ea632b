// Engine::Loop's part that turns a step's answers into events for the readers.
#include <utility>

#include "engine/runtime/engine_core.h"
#include "engine/runtime/explain.h"

namespace tessera {

void Engine::Loop::Emit(const Flight& flight, LlavaModel::Answers answers) {
  auto job = flight.batch.logprobs.begin();
  int place = 0;
  for (const StepPlan::Item& item : flight.plan.items) {
    if (!item.sample) continue;
    const int32_t token = answers.tokens[place];
    const LogprobAt* logprobs = nullptr;
    if (job != flight.batch.logprobs.end() && job->sampled == place) {
      ++job;
      logprobs = answers.logprobs;
      answers.logprobs += flight.batch.logprob_places;
    }
    ++place;
    if (!Live(item.sequence)) continue;
    item.sequence->awaited = -1;
    item.sequence->held = false;
    Generation& g = Of(item.sequence);
    Event event = g.Append(token, logprobs);
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

void Engine::Loop::Await(const Flight& flight) {
  int place = 0;
  for (const StepPlan::Item& item : flight.plan.items) {
    if (!item.sample) continue;
    if (Live(item.sequence)) {
      item.sequence->held |= Of(item.sequence).next_is_last();
      item.sequence->awaited = place;
    }
    ++place;
  }
}

void Engine::Loop::Deliver() {
  for (Delivery& d : deliveries_) d.to->output_queue().Put(std::move(d.event), d.sampled);
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
  generation.output_queue().Put(std::move(event), now);
  by_sequence_.erase(&generation.sequence());
  const auto it = live_.find(arrival);
  if (!flights_.empty()) flights_.back().ended.push_back(std::move(it->second));
  live_.erase(it);
}

}  // namespace tessera
