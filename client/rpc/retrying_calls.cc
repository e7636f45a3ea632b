#include "client/rpc/retrying_calls.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/base.h"

namespace tessera::client {

void RetryPolicy::Register(Options* options) {
  options->Add("retries", &retries, Range<int>{0, 1000},
               "attempts after the first one if the server is full or unavailable");
  options->Add("timeout", &timeout, "deadline of one attempt; 0 is no limit");
}

bool Retryable(const RpcError& error) {
  if (error.reason == "LIMIT_EXCEEDED") return false;
  return error.code == grpc::StatusCode::UNAVAILABLE ||
         error.code == grpc::StatusCode::RESOURCE_EXHAUSTED;
}

absl::Duration Backoff(const RetryPolicy& policy, int attempt, double jitter,
                       std::optional<absl::Duration> asked) {
  // 2^30 times any pause exceeds every limit, and larger powers would overflow.
  const double growth = std::exp2(std::min(attempt - 1, 30));
  const absl::Duration pause = std::min(policy.initial * growth, policy.limit) * jitter;
  // Spreads the calls after the time that was asked for: a full server tells all calls the same
  // time.
  return std::max(pause, asked.value_or(absl::ZeroDuration()) * (0.5 + jitter));
}

RetryingCalls::RetryingCalls(std::shared_ptr<grpc::Channel> channel, RetryPolicy policy)
    : policy_(policy), queue_(std::move(channel)) {}

void RetryingCalls::Start(int64_t tag, v1::GenerateRequest request) {
  State& state = calls_[tag];
  TESSERA_CHECK(state.request == nullptr);
  state.request = std::make_shared<v1::GenerateRequest>(std::move(request));
  Attempt(tag, &state);
}

void RetryingCalls::Attempt(int64_t tag, State* state) {
  ++state->attempts;
  queue_.Start(tag, state->request, policy_.timeout);
  // Stop may have cancelled the running calls just before this one was added.
  if (stopped_) queue_.CancelAll();
}

FinalResult RetryingCalls::Finish(int64_t tag, CallResult call) {
  const auto at = calls_.find(tag);
  FinalResult result{std::move(call), at->second.attempts};
  calls_.erase(at);
  return result;
}

std::optional<FinalResult> RetryingCalls::Next(Clock::time_point until) {
  while (true) {
    while (!pausing_.empty() && (stopped_ || pausing_.begin()->first <= Clock::now())) {
      const int64_t tag = pausing_.begin()->second;
      pausing_.erase(pausing_.begin());
      State& state = calls_.at(tag);
      if (stopped_) return Finish(tag, std::move(state.last));
      Attempt(tag, &state);
    }
    const auto next_retry = pausing_.empty() ? until : pausing_.begin()->first;
    std::optional<CallResult> call = queue_.Next(std::min(until, next_retry));
    if (!call) return std::nullopt;
    State& state = calls_.at(call->tag);
    if (stopped_ || !Retryable(call->error) || state.attempts > policy_.retries) {
      return Finish(call->tag, std::move(*call));
    }
    const double jitter = std::uniform_real_distribution<double>(0.5, 1.0)(random_);
    const absl::Duration pause = Backoff(policy_, state.attempts, jitter, call->error.retry_delay);
    pausing_.emplace(Clock::now() + absl::ToChronoNanoseconds(pause), call->tag);
    state.last = std::move(*call);
  }
}

void RetryingCalls::Stop() {
  stopped_ = true;
  queue_.CancelAll();
  queue_.Wake();
}

}  // namespace tessera::client
