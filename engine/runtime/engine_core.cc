#include "engine/runtime/engine_core.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "cache/audit.h"
#include "engine/statistics/low_pass_residuals.h"

namespace tessera {
namespace {

GenerationRules MakeRules(const ModelConfig& config, const Tokenizer* tokenizer,
                          const EngineOptions& options) {
  GenerationRules rules;
  rules.tokenizer = tokenizer;
  rules.eos.assign(config.eos_tokens.begin(), config.eos_tokens.end());
  rules.banned = {config.image_token};
  if (config.pad_token >= 0) rules.banned.push_back(config.pad_token);
  for (int id = tokenizer->vocab_size(); id < config.text.vocab; ++id) rules.banned.push_back(id);
  // A model may use the same id for padding and for its end.
  std::erase_if(rules.banned, [&](int32_t id) {
    return std::find(rules.eos.begin(), rules.eos.end(), id) != rules.eos.end();
  });
  rules.context_tokens = config.text.max_positions;
  if (options.context_tokens > 0) {
    rules.context_tokens = std::min(rules.context_tokens, options.context_tokens);
  }
  return rules;
}

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(SteadyNow() - start); }

}  // namespace

EngineCore::EngineCore(std::unique_ptr<LlavaModel> model,
                       std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options,
                       Observer* observer, RequestQueue* queue)
    : tokenizer_(std::move(tokenizer)),
      options_(options),
      observer_(observer != nullptr ? observer : &silent_),
      queue_(queue),
      cache_(options.kv_cache_bytes, model->config().text.kv_geometry()),
      runner_(std::move(model), cache_.arena().total_bytes(), options.image_cache_bytes, observer_,
              &requests_),
      rules_(MakeRules(runner_.model().config(), tokenizer_.get(), options)),
      asynchronous_(options.async_scheduling.value_or(runner_.model().ops().asynchronous())),
      scheduler_({options.max_batch_tokens, options.max_sequences}, &cache_),
      compressor_(&scheduler_, cache_.geometry(),
                  [this](const std::vector<MoveBatch>& moves) { runner_.MoveTokens(moves); }),
      outputs_(&requests_, observer_) {
  TESSERA_CHECK(options_.max_batch_tokens <= runner_.model().max_rows());
  TESSERA_CHECK(options_.max_sequences <= options_.max_batch_tokens);
  runner_.model().Ban(rules_.banned);
  if (options_.warm_up) runner_.WarmUp(options_, rules_.context_tokens);
  PublishLoad();
}

void EngineCore::Run() {
  while (Receive()) {
    if (Step()) continue;
    PublishLoad();
    queue_->WaitForWork();
  }
  const absl::Time now = SteadyNow();
  while (!requests_.empty()) {
    Event last;
    last.status = absl::UnavailableError("the server is stopping");
    End(*requests_.by_arrival().begin()->second, std::move(last), now);
  }
  steps_.clear();
  PublishLoad();
}

// The double buffer: the device runs `step` while the host processes the outputs of the step
// before it, and the next call schedules and queues another one behind it.
bool EngineCore::Step() {
  StepReport report;
  InFlightStep* step = ScheduleStep(&report);
  if (step == nullptr) return FinishPipeline(&report);
  Forward(step, &report);
  outputs_.Flush();
  if (steps_.size() > 1) ProcessOldest(&report);
  Advance(step, &report);
  if (MayRunAhead(*step)) {
    outputs_.MarkPending(*step);
  } else {
    ProcessOldest(&report);
  }
  Report(&report);
  return true;
}

bool EngineCore::Receive() {
  RequestQueue::Polled polled = queue_->Poll();
  if (polled.flush_caches) {
    cache_.ClearPrefixCache();
    runner_.ClearEncoderCache();
  }
  for (RequestQueue::Incoming& incoming : polled.requests) Admit(std::move(incoming));
  if (polled.stop) return false;
  EndAbandoned();
  return true;
}

void EngineCore::Admit(RequestQueue::Incoming incoming) {
  RequestState& state = requests_.Add(
      std::make_unique<RequestState>(std::move(incoming.request), std::move(incoming.output_queue),
                                     &rules_, &cache_.arena(), arrivals_++));
  state.submitted = incoming.submitted;
  Sequence& sequence = state.sequence();
  const Request& request = state.request();
  if (request.commit_tokens > 0) sequence.commit_tokens = request.commit_tokens;
  sequence.keep_scores = request.explain;
  sequence.use_prefix = options_.prefix_cache && !request.bypass_prefix;
  if (sequence.use_prefix) {
    // Transformed pages hold other numbers for the same tokens.
    const std::string kind = request.policy->rotated() ? "/hadamard" : "";
    sequence.prefix_root = PrefixRoot(runner_.model().config().name + kind, request.salt);
  }
  scheduler_.Add(&sequence);
}

void EngineCore::EndAbandoned() {
  const absl::Time now = SteadyNow();
  std::vector<std::pair<RequestState*, absl::Status>> ended;
  for (const auto& [arrival, state] : requests_.by_arrival()) {
    if (state->output_queue().cancelled()) {
      ended.emplace_back(state.get(), absl::CancelledError("the request was cancelled"));
    } else if (now >= state->request().deadline) {
      ended.emplace_back(state.get(),
                         absl::DeadlineExceededError("the request's deadline has passed"));
    } else if (state->output_queue().WaitingFor(now) > options_.stall_timeout) {
      ended.emplace_back(state.get(), absl::CancelledError(absl::StrCat(
                                          "the reader took nothing for ",
                                          absl::FormatDuration(options_.stall_timeout))));
    }
  }
  for (auto& [state, status] : ended) {
    Event last;
    last.status = std::move(status);
    End(*state, std::move(last), now);
  }
}

InFlightStep* EngineCore::ScheduleStep(StepReport* report) {
  const absl::Time start = SteadyNow();
  InFlightStep& step = steps_.emplace_back(InFlightStep{.scheduled = scheduler_.Schedule()});
  const SchedulerOutput& scheduled = step.scheduled;
  step.follows = std::exchange(stepped_, !scheduled.items.empty());
  for (const Sequence* s : scheduled.preempted) {
    observer_->OnPreempted(requests_.Of(s).request());
  }
  if (scheduled.items.empty()) {
    steps_.pop_back();
    return nullptr;
  }
  const absl::Time now = SteadyNow();
  for (const Sequence* s : scheduled.admitted) {
    if (s->preemptions > 0) continue;
    requests_.Of(s).first_scheduled = now;
    if (s->use_prefix) observer_->OnPrefixLookup(s->prompt_tokens, s->cached_tokens);
  }
  report->plan_seconds = SecondsSince(start);
  return &step;
}

bool EngineCore::FinishPipeline(StepReport* report) {
  const bool in_flight = !steps_.empty();
  if (in_flight) {
    ProcessOldest(report);
    PublishLoad();
    observer_->OnStep(*report, queue_->Load());
  }
  outputs_.Flush();
  return in_flight;
}

void EngineCore::Forward(InFlightStep* step, StepReport* report) {
  const absl::Time start = SteadyNow();
  runner_.EncodeImages(step);
  report->vision_seconds = SecondsSince(start);
  const absl::Time encoded = SteadyNow();
  runner_.BuildBatch(step);
  report->batch_seconds = SecondsSince(encoded);
  const absl::Time built = SteadyNow();
  runner_.Forward(*step);
  report->forward_seconds = SecondsSince(built);
}

void EngineCore::Advance(InFlightStep* step, StepReport* report) {
  std::vector<Sequence*> ready;
  for (size_t i = 0; i < step->scheduled.items.size(); ++i) {
    const SchedulerOutput::Item& item = step->scheduled.items[i];
    Sequence* s = item.sequence;
    if (!s->running) continue;  // it ended or was preempted since the step was scheduled
    scheduler_.Advance(item);
    const bool low_pass = s->commit_due() && s->needs.low_pass;
    s->blocked = low_pass || step->next_step_needs_statistics[i] ||
                 (s->commit_due() && s->needs.residual_peaks > 0);
    (low_pass ? step->await_low_pass : s->blocked ? step->await_statistics : ready).push_back(s);
  }
  BeginLowPass(step, report);
  Compress(ready, report);
}

bool EngineCore::MayRunAhead(const InFlightStep& step) const {
  if (!asynchronous_) return false;
  // A policy that goes on choosing needs every step's statistics before the next step.
  for (size_t i = 0; i < step.scheduled.items.size(); ++i) {
    if (step.next_step_needs_statistics[i] && step.scheduled.items[i].sequence->committed) {
      return false;
    }
  }
  return true;
}

void EngineCore::ProcessOldest(StepReport* report) {
  InFlightStep& step = steps_.front();
  const absl::Time start = SteadyNow();
  const LlavaModel::Output output = runner_.Finish(step);
  report->forward_seconds += SecondsSince(start);
  if (step.follows) report->gap_seconds += output.gap_seconds;
  if (step.encoded_images > 0) {
    observer_->OnImageEncoded(step.encoded_images, output.vision_seconds);
  }
  for (RequestState* request : step.encoded_for) {
    request->vision_seconds += output.vision_seconds / static_cast<double>(step.encoded_for.size());
  }
  Unblock(step.await_statistics, report);
  FinishLowPass(&step, report);

  const absl::Time processing = SteadyNow();
  for (const SchedulerOutput::Item& item : step.scheduled.items) {
    (item.count == 1 ? report->decode_tokens : report->prefill_tokens) += item.count;
  }
  report->sequences += static_cast<int>(step.scheduled.items.size());
  for (OutputProcessor::Ended& ended : outputs_.Process(step, output)) {
    End(*ended.request, std::move(ended.last), SteadyNow());
  }
  steps_.pop_front();
  // The device has work, or is the host itself: now is the time to tell the readers.
  if (!steps_.empty() || !asynchronous_) outputs_.Flush();
  report->sample_seconds += SecondsSince(processing);
}

void EngineCore::BeginLowPass(InFlightStep* step, StepReport* report) {
  const absl::Time start = SteadyNow();
  std::erase_if(step->await_low_pass, [this](Sequence* s) {
    const bool gone = !requests_.Contains(s) || !s->running;  // ended, or to be measured again
    if (gone) s->blocked = false;
    return gone;
  });
  step->measuring = 0;
  for (Sequence* s : step->await_low_pass) {
    if (!runner_.BeginLowPass(s)) break;  // FinishLowPass goes on with the others
    ++step->measuring;
  }
  report->compress_seconds += SecondsSince(start);
}

void EngineCore::FinishLowPass(InFlightStep* step, StepReport* report) {
  while (!step->await_low_pass.empty()) {
    const absl::Time start = SteadyNow();
    const std::vector<LowPassStats> values = runner_.FinishLowPass();
    report->forward_seconds += SecondsSince(start);
    const auto end = step->await_low_pass.begin() + static_cast<std::ptrdiff_t>(step->measuring);
    const std::vector<Sequence*> measured(step->await_low_pass.begin(), end);
    TESSERA_CHECK(values.size() == measured.size());
    for (size_t i = 0; i < measured.size(); ++i) {
      Sequence& s = *measured[i];
      if (!requests_.Contains(&s) || !s.running) continue;
      s.statistics.Find<LowPassResiduals>()->Set(values[i]);
    }
    step->await_low_pass.erase(step->await_low_pass.begin(), end);
    Unblock(measured, report);
    BeginLowPass(step, report);
  }
}

void EngineCore::Unblock(const std::vector<Sequence*>& sequences, StepReport* report) {
  std::vector<Sequence*> ready;
  for (Sequence* s : sequences) {
    s->blocked = false;
    if (requests_.Contains(s)) ready.push_back(s);
  }
  Compress(ready, report);
}

void EngineCore::Compress(const std::vector<Sequence*>& sequences, StepReport* report) {
  const absl::Time start = SteadyNow();
  const Compressor::Result result = compressor_.Compress(sequences);
  if (result.report.commits > 0 || result.report.move_seconds > 0) {
    observer_->OnCompressed(result.report);
  }
  for (const Sequence* s : result.preempted) observer_->OnPreempted(requests_.Of(s).request());
  report->compress_seconds += SecondsSince(start);
}

void EngineCore::End(RequestState& request, Event last, absl::Time now) {
  outputs_.Flush();  // this request's earlier events come first
  outputs_.Complete(request, cache_.arena(), now, &last);
  // Pages are freed before the reader hears of the end: a client that saw it finds the memory free.
  scheduler_.Remove(&request.sequence());
  observer_->OnFinished(request.request(), last);
  queue_->Remove(request.request().id);
  request.output_queue().Put(std::move(last), now);
  std::unique_ptr<RequestState> ended = requests_.Remove(request);
  if (!steps_.empty()) steps_.back().ended.push_back(std::move(ended));
}

void EngineCore::Report(StepReport* report) {
  const int64_t clamped_slopes = runner_.model().ops().clamped_slopes();
  report->clamped_slopes = clamped_slopes - std::exchange(clamped_slopes_, clamped_slopes);
  PublishLoad();
  observer_->OnStep(*report, queue_->Load());
  if (options_.check_integrity) CheckIntegrity();
}

void EngineCore::PublishLoad() {
  EngineLoad load;
  load.running = scheduler_.running();
  load.waiting = scheduler_.waiting();
  cache_.Describe(&load);
  load.image_cache_bytes = runner_.encoder_cache().bytes();
  load.image_cache_entries = runner_.encoder_cache().entries();
  queue_->Publish(load);
}

void EngineCore::CheckIntegrity() {
  std::vector<const SequenceCache*> caches;
  for (const auto& [arrival, state] : requests_.by_arrival()) {
    caches.push_back(&state->sequence().cache);
  }
  const absl::Status status = AuditCache(cache_.arena(), &cache_.prefix_cache(), caches);
  if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
}

}  // namespace tessera
