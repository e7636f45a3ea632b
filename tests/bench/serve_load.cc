#include "tests/bench/serve_load.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/engine_fixture.h"

namespace tessera::bench {
namespace {

constexpr float kTopP = 0.95f;

const std::pair<absl::string_view, void (*)(Request&)> kAsks[] = {
    {"token", [](Request&) {}},
    {"penalties",
     [](Request& r) {
       r.sampling.repetition_penalty = 1.1f;
       r.sampling.frequency_penalty = 0.1f;
     }},
    {"logprobs", [](Request& r) { r.top_logprobs = 5; }},
};

class Clients {
 public:
  Clients(Engine& engine, const Case& which, uint64_t seed)
      : engine_(engine), case_(which), seed_(seed) {}

  // Sends a request; `done` words of the answer are already in the prompt.
  void Ask(int done) {
    const Shape& shape = case_.shape;
    const size_t index = boxes_.size();
    boxes_.push_back(std::make_shared<OutputQueue>([this, index] {
      MutexLock lock(mutex_);
      ready_.push_back(index);
      raised_.notify_all();
    }));
    Request r;
    r.id = absl::StrCat("serve-", seed_, "-", index);
    // RandomPictures writes a word after every image.
    r.prompt = RandomPictures(engine_.model_config(), shape.images,
                              shape.text - shape.images + done, seed_ << 32 | index);
    r.stop.max_tokens = shape.output - done;
    r.stop.ignore_eos = true;
    r.sampling.temperature = case_.temperature;
    if (case_.temperature > 0) r.sampling.top_p = kTopP;
    for (const auto& [name, ask] : kAsks) {
      if (name == case_.asks) ask(r);
    }
    r.policy = case_.policy;
    r.bypass_prefix = true;
    r.received = SteadyNow();
    const absl::Status status = engine_.Submit(std::move(r), boxes_.back(), nullptr);
    if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
    started_.push_back(false);
    ++live_;
  }
  // Returns the number of requests without a token yet.
  int64_t unanswered() const { return std::count(started_.begin(), started_.end(), false); }

  // Takes the available events, waits at most `longest`, and returns how many answers have ended.
  int Read(absl::Duration longest) {
    std::deque<size_t> ready;
    {
      std::unique_lock<Mutex> lock(mutex_);
      if (ready_.empty()) raised_.wait_for(lock, absl::ToChronoNanoseconds(longest));
      ready.swap(ready_);
    }
    int ended = 0;
    for (const size_t index : ready) {
      while (const std::optional<Event> event = boxes_[index]->Take(SteadyNow())) {
        started_[index] = true;
        if (!event->done) continue;
        TESSERA_CHECK(event->status.ok() || stopping_);
        ++ended;
      }
    }
    live_ -= ended;
    return ended;
  }

  // Cancels the running requests and waits for them.
  void Stop() {
    stopping_ = true;
    for (const auto& box : boxes_) box->Cancel();
    while (live_ > 0) Read(absl::Milliseconds(10));
  }
  int live() const { return live_; }
  int asked() const { return static_cast<int>(boxes_.size()); }

 private:
  Engine& engine_;
  const Case& case_;
  uint64_t seed_;
  std::vector<std::shared_ptr<OutputQueue>> boxes_;
  std::vector<bool> started_;
  int live_ = 0;
  bool stopping_ = false;
  Mutex mutex_;
  std::condition_variable_any raised_;
  std::deque<size_t> ready_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace

bool KnowsAsks(absl::string_view name) {
  return std::any_of(std::begin(kAsks), std::end(kAsks),
                     [&](const auto& known) { return known.first == name; });
}

Span RunCase(Engine& engine, const Case& c, int requests, absl::Duration warmup,
             absl::Duration seconds, uint64_t seed) {
  const double batch_tokens = engine.options().max_batch_tokens;
  Clients clients(engine, c, seed);
  Span span;
  span.begin = SteadyNow();
  if (requests > 0) {
    for (int i = 0; i < std::min(requests, c.sequences); ++i) clients.Ask(0);
    while (clients.live() > 0) {
      const int ended = clients.Read(absl::Milliseconds(100));
      for (int i = 0; i < ended && clients.asked() < requests; ++i) clients.Ask(0);
    }
    span.end = SteadyNow();
    return span;
  }
  const absl::Time latest = span.begin + warmup;
  // While the last prompts are still computed, the first sequences decode `ahead` steps, which must
  // not bring them out of step.
  const double tokens = c.shape.text +
                        double(engine.model_config().tokens_per_image()) * c.shape.images +
                        0.5 * c.shape.output;
  const double ahead = c.sequences * tokens / (batch_tokens - 0.5 * c.sequences);
  for (int i = 0; i < c.sequences; ++i) {
    const double place = (i + 0.5) / c.sequences;
    const double done = place * c.shape.output - (1 - place) * ahead;
    const double turn = std::floor(done / c.shape.output) * c.shape.output;
    clients.Ask(static_cast<int>(std::min(done - turn, c.shape.output - 1.0)));
  }
  span.end = absl::InfiniteFuture();
  while (SteadyNow() < span.end) {
    const int ended = clients.Read(absl::Milliseconds(20));
    for (int i = 0; i < ended; ++i) clients.Ask(0);
    if (span.end == absl::InfiniteFuture() &&
        (clients.unanswered() * 50 <= c.sequences || SteadyNow() > latest)) {
      span.begin = SteadyNow();
      span.end = span.begin + seconds;
    }
  }
  clients.Stop();
  return span;
}

}  // namespace tessera::bench
