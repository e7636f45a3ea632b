#include "engine/runtime/engine_core.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/audit.h"
#include "engine/runtime/warm_up.h"

namespace tessera {
namespace {

// How long the idle loop sleeps between heartbeats.
constexpr auto kIdleTurn = std::chrono::milliseconds(100);

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
  if (options.context_tokens > 0)
    rules.context_tokens = std::min(rules.context_tokens, options.context_tokens);
  return rules;
}

}  // namespace

Engine::Loop::Loop(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
                   const EngineOptions& options, Observer* observer)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      observer_(observer != nullptr ? observer : &silent_),
      rules_(MakeRules(model_->config(), tokenizer_.get(), options)),
      run_ahead_(options.run_ahead.value_or(model_->ops().asynchronous())),
      arena_(options.kv_cache_bytes, model_->config().text.kv_geometry()),
      prefix_(&arena_),
      features_(options.image_cache_bytes),
      scheduler_({options.max_batch_tokens, options.max_sequences}, &arena_, &prefix_) {
  TESSERA_CHECK(options_.max_batch_tokens <= model_->max_rows());
  TESSERA_CHECK(options_.max_sequences <= options_.max_batch_tokens);
  arena_memory_ = model_->ops().Allocate(arena_.total_bytes());
  model_->Ban(rules_.banned);
  if (options_.warm_up) {
    WarmUp(*model_,
           {options_.max_batch_tokens, options_.max_sequences, rules_.context_tokens,
            options_.warm_up_low_pass},
           arena_memory_.get(), arena_.total_bytes());
  }
  heartbeat_nanos_ = absl::ToUnixNanos(SteadyNow());
  PublishLoad();
  thread_ = std::thread([this] { Main(); });
}

Engine::Loop::~Loop() { Stop(); }

void Engine::Loop::Main() {
  while (TakeInbox()) {
    Sweep(SteadyNow());
    if (!Step()) {
      PublishLoad();
      std::unique_lock<Mutex> lock(mutex_);
      if (inbox_.empty() && !stopping_ && !flush_) wake_.wait_for(lock, kIdleTurn);
    }
  }
  const absl::Time now = SteadyNow();
  while (!live_.empty()) {
    Event last;
    last.status = absl::UnavailableError("the server is stopping");
    Finish(*live_.begin()->second, std::move(last), now);
  }
  flights_.clear();
  PublishLoad();
}

bool Engine::Loop::TakeInbox() {
  heartbeat_nanos_.store(absl::ToUnixNanos(SteadyNow()), std::memory_order_release);
  std::vector<Incoming> fresh;
  bool flush, stopping;
  {
    MutexLock lock(mutex_);
    fresh.swap(inbox_);
    // Counted as waiting until the scheduler's own count is published.
    load_.waiting += static_cast<int>(fresh.size());
    flush = std::exchange(flush_, false);
    stopping = stopping_;
  }
  if (flush) {
    prefix_.Clear();
    features_.Clear();
  }
  for (Incoming& in : fresh) {
    const int64_t arrival = arrivals_++;
    auto generation = std::make_unique<Generation>(
        std::move(in.request), std::move(in.output_queue), &rules_, &arena_, arrival);
    generation->submitted = in.submitted;
    Sequence& sequence = generation->sequence();
    const Request& request = generation->request();
    if (request.commit_tokens > 0) sequence.commit_tokens = request.commit_tokens;
    sequence.keep_scores = request.explain;
    sequence.use_prefix = options_.prefix_cache && !request.bypass_prefix;
    if (sequence.use_prefix) {
      // Transformed pages hold other numbers for the same tokens.
      const std::string kind = request.policy->rotated() ? "/hadamard" : "";
      sequence.prefix_root = PrefixRoot(model_->config().name + kind, request.salt);
    }
    by_sequence_[&sequence] = generation.get();
    scheduler_.Add(&sequence);
    live_.emplace(arrival, std::move(generation));
  }
  return !stopping;
}

void Engine::Loop::Sweep(absl::Time now) {
  std::vector<std::pair<Generation*, absl::Status>> ended;
  for (auto& [arrival, g] : live_) {
    if (g->output_queue().cancelled()) {
      ended.emplace_back(g.get(), absl::CancelledError("the request was cancelled"));
    } else if (now >= g->request().deadline) {
      ended.emplace_back(g.get(), absl::DeadlineExceededError("the request's deadline has passed"));
    } else if (g->output_queue().WaitingFor(now) > options_.stall_timeout) {
      ended.emplace_back(g.get(), absl::CancelledError(
                                      absl::StrCat("the reader took nothing for ",
                                                   absl::FormatDuration(options_.stall_timeout))));
    }
  }
  for (auto& [g, status] : ended) {
    Event last;
    last.status = std::move(status);
    Finish(*g, std::move(last), now);
  }
}

bool Engine::Loop::Step() {
  const absl::Time start = SteadyNow();
  StepReport report;
  Flight& flight = flights_.emplace_back(Flight{.plan = scheduler_.Plan()});
  const StepPlan& plan = flight.plan;
  flight.follows = std::exchange(stepping_, !plan.items.empty());
  for (const Sequence* s : plan.preempted) observer_->OnPreempted(Of(s).request());
  if (plan.items.empty()) {
    flights_.pop_back();
    const bool under_way = !flights_.empty();
    if (under_way) {
      Settle(&report);
      PublishLoad();
      observer_->OnStep(report, Load());
    }
    Deliver();
    return under_way;
  }

  const absl::Time planned = SteadyNow();
  for (const Sequence* s : plan.admitted) {
    Generation& g = Of(s);
    if (g.sequence().preemptions > 0) continue;
    g.first_scheduled = planned;
    if (s->use_prefix) observer_->OnPrefixLookup(s->prompt_tokens, s->cached_tokens);
  }
  EncodeImages(&flight);
  const absl::Time encoded = SteadyNow();
  flight.batch = MakeBatch(plan);
  const Batch& batch = flight.batch;
  const absl::Time made = SteadyNow();
  model_->Forward(batch, arena_memory_.get());
  Deliver();
  report.plan_seconds = absl::ToDoubleSeconds(planned - start);
  report.vision_seconds = absl::ToDoubleSeconds(encoded - planned);
  report.batch_seconds = absl::ToDoubleSeconds(made - encoded);
  report.forward_seconds = absl::ToDoubleSeconds(SteadyNow() - made);
  if (flights_.size() > 1) Settle(&report);

  Complete(&flight, &report);  // while the device works
  // What goes on choosing needs every step's sums before the next.
  const auto chooses = [&](const ColumnJob& job) {
    return plan.items[job.sequence].sequence->committed;
  };
  if (run_ahead_ && std::none_of(batch.column_jobs.begin(), batch.column_jobs.end(), chooses)) {
    Await(flight);
  } else {
    Settle(&report);
  }
  const int64_t clamped_slopes = model_->ops().clamped_slopes();
  report.clamped_slopes = clamped_slopes - std::exchange(held_slopes_, clamped_slopes);
  PublishLoad();
  observer_->OnStep(report, Load());
  if (options_.check_integrity) CheckIntegrity();
  return true;
}

void Engine::Loop::Move(const std::vector<MoveBatch>& batches) {
  const absl::Time start = SteadyNow();
  model_->MoveTokens(arena_memory_.get(), batches);
  move_time_ += SteadyNow() - start;
}

void Engine::Loop::Complete(Flight* flight, StepReport* report) {
  std::vector<bool> columns(flight->plan.items.size());
  for (const ColumnJob& job : flight->batch.column_jobs) columns[job.sequence] = true;
  std::vector<Sequence*> known;
  for (size_t i = 0; i < flight->plan.items.size(); ++i) {
    const StepPlan::Item& item = flight->plan.items[i];
    Sequence* s = item.sequence;
    if (!s->running) continue;  // gone, or preempted, since the flight began
    scheduler_.Complete(item);
    const bool low_pass = s->commit_due() && s->needs.low_pass;
    s->held = low_pass || columns[i] || (s->commit_due() && s->needs.residual_peaks > 0);
    (low_pass ? flight->low_pass : s->held ? flight->measured : known).push_back(s);
  }
  BeginLowPass(flight, report);
  Compress(known, report);
}

void Engine::Loop::Release(const std::vector<Sequence*>& held, StepReport* report) {
  std::vector<Sequence*> known;
  for (Sequence* s : held) {
    s->held = false;
    if (Live(s)) known.push_back(s);
  }
  Compress(known, report);
}

void Engine::Loop::Compress(const std::vector<Sequence*>& sequences, StepReport* step) {
  const absl::Time start = SteadyNow();
  std::vector<Sequence*> preempted;
  CompressReport report;
  move_time_ = absl::ZeroDuration();
  for (Sequence* s : sequences) {
    const Compressed done = scheduler_.Compress(s, *this, &preempted);
    report.commits += done.committed ? 1 : 0;
    report.exited_tokens += done.exited_tokens;
  }
  scheduler_.FinishMoves(*this);
  if (report.commits > 0) report.commit_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
  report.move_seconds = absl::ToDoubleSeconds(move_time_);
  if (report.commits > 0 || move_time_ > absl::ZeroDuration()) observer_->OnCompressed(report);
  for (const Sequence* s : preempted) observer_->OnPreempted(Of(s).request());
  step->compress_seconds += absl::ToDoubleSeconds(SteadyNow() - start);
}

void Engine::Loop::Settle(StepReport* report) {
  Flight& flight = flights_.front();
  const absl::Time start = SteadyNow();
  const LlavaModel::Answers answers = model_->Finish();
  report->forward_seconds += absl::ToDoubleSeconds(SteadyNow() - start);
  if (flight.follows) report->gap_seconds += answers.gap_seconds;
  if (flight.pictures > 0) observer_->OnImageEncoded(flight.pictures, answers.vision_seconds);
  for (Generation* g : flight.pictured) {
    g->vision_seconds += answers.vision_seconds / static_cast<double>(flight.pictured.size());
  }
  CollectStatistics(flight, answers);
  Release(flight.measured, report);
  SettleLowPass(&flight, report);

  const absl::Time compressed = SteadyNow();
  for (const StepPlan::Item& item : flight.plan.items) {
    (item.count == 1 ? report->decode_tokens : report->prefill_tokens) += item.count;
  }
  report->sequences += static_cast<int>(flight.plan.items.size());
  Emit(flight, answers);
  flights_.pop_front();
  if (!flights_.empty()) Deliver();  // the device works meanwhile
  report->sample_seconds += absl::ToDoubleSeconds(SteadyNow() - compressed);
}

void Engine::Loop::PublishLoad() {
  EngineLoad load;
  load.running = scheduler_.running();
  load.waiting = scheduler_.waiting();
  load.kv_bytes_total = arena_.total_bytes();
  load.kv_bytes_reclaimable =
      prefix_.reclaimable_pages() * PageBytes(Format::kRaw16, arena_.geometry());
  load.kv_bytes_used = arena_.used_bytes() - load.kv_bytes_reclaimable;
  load.kv_bytes_stranded = arena_.slab_used_bytes() - arena_.used_bytes();
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    load.pages_by_format[f] = arena_.pages_in_use(format);
    load.bytes_by_format[f] = load.pages_by_format[f] * arena_.page_bytes(format);
  }
  load.prefix_blocks = prefix_.blocks();
  load.image_cache_bytes = features_.bytes();
  load.image_cache_entries = features_.entries();
  MutexLock lock(mutex_);
  load_ = load;
}

void Engine::Loop::CheckIntegrity() {
  std::vector<const SequenceCache*> caches;
  for (const auto& [arrival, g] : live_) caches.push_back(&g->sequence().cache);
  const absl::Status status = AuditCache(arena_, &prefix_, caches);
  if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
}

}  // namespace tessera
