#include "client/load/load_run.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "base/base.h"
#include "base/mutex.h"

namespace tessera::client {
namespace {

using SharedRequest = std::shared_ptr<const v1::GenerateRequest>;

// Makes requests ahead on a thread of its own, because drawing images would delay the sending.
class RequestFeed {
 public:
  RequestFeed(const LoadPlan& plan, const MakeRequest& make) {
    const size_t ahead = std::clamp(plan.concurrency, 16, 256);
    thread_ = std::thread([this, ahead, plan, &make] {
      for (int64_t i = 0; plan.requests == 0 || i < plan.requests; ++i) {
        auto request = std::make_shared<const v1::GenerateRequest>(make(plan.first_index + i));
        MutexLock lock(mutex_);
        while (!stopped_ && ready_.size() >= ahead) changed_.Wait(mutex_);
        if (stopped_) return;
        ready_.push_back(std::move(request));
        changed_.NotifyAll();
      }
    });
  }

  ~RequestFeed() {
    {
      MutexLock lock(mutex_);
      stopped_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }

  // REQUIRES: called at most plan.requests times.
  SharedRequest Take() {
    MutexLock lock(mutex_);
    while (ready_.empty()) changed_.Wait(mutex_);
    SharedRequest request = std::move(ready_.front());
    ready_.pop_front();
    changed_.NotifyAll();
    return request;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::deque<SharedRequest> ready_ TESSERA_GUARDED_BY(mutex_);
  bool stopped_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Decides when requests are due. In an open loop they follow a Poisson process that does not depend
// on the server. In a closed loop a request is due when fewer than `concurrency` are in flight.
class Arrivals {
 public:
  explicit Arrivals(const LoadPlan& plan)
      : plan_(plan), random_(plan.seed), start_(Clock::now()), due_(start_) {
    if (plan_.rate > 0) Advance();
  }

  bool more(int64_t sent) const {
    if (plan_.requests > 0 && sent >= plan_.requests) return false;
    if (plan_.duration == absl::ZeroDuration()) return true;
    const auto end = start_ + absl::ToChronoNanoseconds(plan_.duration);
    return plan_.rate > 0 ? due_ < end : Clock::now() < end;
  }
  bool is_due(int in_flight) const {
    return plan_.rate > 0 ? due_ <= Clock::now() : in_flight < plan_.concurrency;
  }
  // Returns until when RunLoad may wait for results.
  Clock::time_point next() const { return plan_.rate > 0 ? due_ : Clock::time_point::max(); }
  // Returns the due time of the request that is sent now.
  Clock::time_point Take() {
    if (plan_.rate <= 0) return Clock::now();
    const auto due = due_;
    Advance();
    return due;
  }

 private:
  void Advance() {
    // 1 - uniform is in (0, 1], so its logarithm is finite.
    const double uniform = std::generate_canonical<double, 53>(random_);
    const std::chrono::duration<double> gap(-std::log(1.0 - uniform) / plan_.rate);
    due_ += std::chrono::duration_cast<Clock::duration>(gap);
  }

  const LoadPlan& plan_;
  std::mt19937_64 random_;
  const Clock::time_point start_;
  Clock::time_point due_;
};

}  // namespace

std::vector<Measured> RunLoad(std::shared_ptr<grpc::Channel> channel, const LoadPlan& plan,
                              const MakeRequest& make, Interrupt* interrupt,
                              const OnProgress& on_progress) {
  TESSERA_CHECK(plan.requests > 0 || plan.duration > absl::ZeroDuration());
  std::vector<Measured> results;
  std::map<int64_t, Clock::time_point> due;  // of requests in flight
  std::atomic<bool> stopped = false;
  RequestFeed feed(plan, make);
  CallQueue calls(std::move(channel));
  Interrupt::Scope on_interrupt(interrupt, [&] {
    stopped = true;
    calls.CancelAll();
    calls.Wake();
  });
  int64_t sent = 0, failed = 0;
  std::multimap<Clock::time_point, int64_t> cancels;  // to come, by time
  std::set<int64_t> cancelled;                        // of requests in flight
  const auto cancel_due = [&] {
    while (!cancels.empty() && cancels.begin()->first <= Clock::now()) {
      const int64_t tag = cancels.begin()->second;
      cancels.erase(cancels.begin());
      if (due.count(tag) == 0) continue;  // it has ended
      cancelled.insert(tag);
      calls.Cancel(tag);
    }
  };
  SharedRequest request;
  Arrivals arrivals(plan);
  while (true) {
    cancel_due();
    const bool more = !stopped && arrivals.more(sent);
    if (more && request == nullptr) request = feed.Take();
    if (more && arrivals.is_due(calls.in_flight())) {
      const Treatment treatment = plan.treat ? plan.treat(plan.first_index + sent) : Treatment();
      due[sent] = arrivals.Take();
      calls.Start(sent, std::move(request), plan.timeout, treatment.read_pause);
      if (treatment.cancel_after) {
        cancels.emplace(Clock::now() + absl::ToChronoNanoseconds(*treatment.cancel_after), sent);
      }
      if (stopped) calls.CancelAll();
      request = nullptr;
      ++sent;
      continue;
    }
    if (!more && calls.in_flight() == 0) break;
    auto until = more ? arrivals.next() : Clock::time_point::max();
    if (!cancels.empty()) until = std::min(until, cancels.begin()->first);
    auto call = calls.Next(until);
    if (!call) continue;
    const auto started = due.extract(call->tag);
    const bool was_cancelled = cancelled.erase(call->tag) > 0;
    const bool ended_so = call->error.code == grpc::StatusCode::CANCELLED;
    if (stopped && ended_so) continue;
    failed += !call->ok() && !(was_cancelled && ended_so);
    call->text.clear();
    results.push_back({started.mapped(), std::move(*call), was_cancelled});
    on_progress(static_cast<int64_t>(results.size()), failed);
  }
  return results;
}

}  // namespace tessera::client
