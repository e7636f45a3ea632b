#include "client/rpc/call_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/rpc/connection.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace tessera::client {

// The reactor of one call. It deletes itself in OnDone, the last call that gRPC makes to it.
class CallQueue::Call : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(CallQueue* queue, int64_t tag, std::shared_ptr<const v1::GenerateRequest> request,
       std::shared_ptr<grpc::ClientContext> context, absl::Duration read_pause)
      : tag_(tag),
        queue_(queue),
        request_(std::move(request)),
        context_(std::move(context)),
        read_pause_(read_pause) {
    result_.tag = tag;
  }

  int64_t tag() const { return tag_; }

  void Begin() {
    result_.sent = Clock::now();
    queue_->stub_->async()->Generate(context_.get(), request_.get(), this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    Take();
    if (read_pause_ <= absl::ZeroDuration()) {
      StartRead(&response_);
      return;
    }
    AddHold();  // keeps the call from ending while the alarm is pending
    // Each pause needs a new alarm, because the callback of the last one may still be returning.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(read_pause_),
                [this](bool) {
                  StartRead(&response_);
                  RemoveHold();
                });
  }

  void OnDone(const grpc::Status& status) override {
    result_.done = finished_ ? finished_at_ : Clock::now();
    if (!status.ok()) {
      result_.error = DecodeError(status);
    } else if (!violation_.empty()) {
      result_.error = {grpc::StatusCode::INTERNAL, violation_};
    } else if (!finished_) {
      result_.error = {grpc::StatusCode::INTERNAL,
                       "the stream ended with OK but without a `finished` event"};
    }
    // Removes the call before it reports the end. A waiting thread may drop the channel then, and
    // the last reference must not be dropped on a gRPC thread: gRPC would join it with itself.
    CallQueue* const queue = queue_;
    CallResult result = std::move(result_);
    queue->Forget(this);
    delete this;
    queue->Finish(std::move(result));
  }

 private:
  void Take() {
    const auto now = Clock::now();
    switch (response_.event_case()) {
      case v1::GenerateResponse::kAccepted:
        if (accepted_) violation_ = "the stream brought `accepted` twice";
        accepted_ = true;
        result_.accepted = std::move(*response_.mutable_accepted());
        break;
      case v1::GenerateResponse::kDelta: {
        if (!accepted_ || finished_) violation_ = "the stream brought a `delta` out of order";
        const v1::TokenDelta& delta = response_.delta();
        result_.marks.push_back({now, delta.tokens()});
        result_.text += delta.text();
        if (queue_->on_delta_ && !delta.text().empty()) {
          queue_->on_delta_(result_.tag, delta.text());
        }
        break;
      }
      case v1::GenerateResponse::kFinished:
        if (!accepted_ || finished_) violation_ = "the stream brought `finished` out of order";
        finished_ = true;
        finished_at_ = now;
        result_.finished = std::move(*response_.mutable_finished());
        break;
      case v1::GenerateResponse::EVENT_NOT_SET:
        break;  // an event of a newer protocol
    }
    response_.Clear();
  }

  const int64_t tag_;
  CallQueue* const queue_;
  const std::shared_ptr<const v1::GenerateRequest> request_;
  const std::shared_ptr<grpc::ClientContext> context_;
  const absl::Duration read_pause_;
  std::unique_ptr<grpc::Alarm> alarm_;
  v1::GenerateResponse response_;
  CallResult result_;
  std::string violation_;
  bool accepted_ = false, finished_ = false;
  Clock::time_point finished_at_;
};

CallQueue::CallQueue(std::shared_ptr<grpc::Channel> channel, OnDelta on_delta)
    : stub_(v1::Inference::NewStub(channel)), on_delta_(std::move(on_delta)) {}

CallQueue::~CallQueue() {
  CancelAll();
  MutexLock lock(mutex_);
  while (unfinished_ > 0) changed_.Wait(mutex_);
}

void CallQueue::Start(int64_t tag, std::shared_ptr<const v1::GenerateRequest> request,
                      absl::Duration timeout, absl::Duration read_pause) {
  auto context = std::make_shared<grpc::ClientContext>();
  SetTimeout(timeout, context.get());
  Call* call = new Call(this, tag, std::move(request), context, read_pause);
  ++in_flight_;
  {
    MutexLock lock(mutex_);
    running_.emplace(call, std::move(context));
    ++unfinished_;
  }
  call->Begin();
}

std::optional<CallResult> CallQueue::Next(Clock::time_point until) {
  const absl::Time deadline = until == Clock::time_point::max()
                                  ? absl::InfiniteFuture()
                                  : absl::UnixEpoch() + absl::FromChrono(until.time_since_epoch());
  MutexLock lock(mutex_);
  while (!woken_ && finished_.empty() && changed_.WaitUntil(mutex_, deadline)) {
  }
  woken_ = false;
  if (finished_.empty()) return std::nullopt;
  CallResult result = std::move(finished_.front());
  finished_.pop_front();
  --in_flight_;
  return result;
}

void CallQueue::Cancel(int64_t tag) {
  std::vector<std::shared_ptr<grpc::ClientContext>> contexts;
  {
    MutexLock lock(mutex_);
    for (const auto& [call, context] : running_) {
      if (call->tag() == tag) contexts.push_back(context);
    }
  }
  for (const auto& context : contexts) context->TryCancel();
}

void CallQueue::CancelAll() {
  // Cancels outside the lock, because TryCancel may run reactor callbacks on this thread.
  std::vector<std::shared_ptr<grpc::ClientContext>> contexts;
  {
    MutexLock lock(mutex_);
    for (const auto& [call, context] : running_) contexts.push_back(context);
  }
  for (const auto& context : contexts) context->TryCancel();
}

void CallQueue::Wake() {
  MutexLock lock(mutex_);
  woken_ = true;
  changed_.NotifyAll();
}

void CallQueue::Forget(Call* call) {
  // The call still holds its context, so no context is destroyed under the lock.
  MutexLock lock(mutex_);
  running_.erase(call);
}

void CallQueue::Finish(CallResult result) {
  // Notifies under the lock: once it is free, the destructor may end this object.
  MutexLock lock(mutex_);
  --unfinished_;
  finished_.push_back(std::move(result));
  changed_.NotifyAll();
}

}  // namespace tessera::client
