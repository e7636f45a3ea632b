// One request that generates, from its arrival to the last byte of its answers, over any front end.
//
//   kPreparing   the request is parsed; images are fetched; a worker decodes them, builds the
//                prompts and submits them to the engine
//   kStreaming   the output queues notify a sender thread; it takes events and starts a write; when
//                that is done, the next events are taken
//   kFinished    the last write, or the error, is with the front end
//
// Every decision is taken under the lock by the thread that sees the chance first. The writer sends
// outside the lock, and at most one write is in flight. A client that goes away, its deadline, an
// abort by the operator, a drain and a client that stops reading all end the request early; the
// engine then frees its memory within a step.
//
// A request may have several prompts, and several answers for each. The first answer of a prompt is
// submitted at once; the others follow when it has produced a token, because the prompt's KV pages
// are in the prefix cache by then.
//
// Ownership: the registry holds the request until OnDone; output queues know it weakly; the request
// owns its writer. Threads: any thread may call any method; Prepare is called once.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/request/output_queue.h"
#include "server/access/access.h"
#include "server/api/parsed_request.h"
#include "server/request/response_writer.h"
#include "server/request/service_context.h"

namespace tessera {

class RequestRegistry;

// The facts that the front end has when the call arrives. Times are SteadyNow's.
struct CallInfo {
  std::string id;                // empty if the call has none yet and is about to be rejected
  std::shared_ptr<Lease> lease;  // null: the caller was rejected
  absl::Time received, deadline;
  std::string peer, traceparent;
};

// The prompts of a request and the number of answers to each.
struct GenerationPlan {
  std::vector<ParsedRequest> prompts;
  int answers_each = 1;
};

class ActiveRequest : public std::enable_shared_from_this<ActiveRequest> {
 public:
  // Creates a request and registers it. `services` and `registry` outlive it.
  static std::shared_ptr<ActiveRequest> Open(const ServiceContext* services,
                                             RequestRegistry* registry, CallInfo call,
                                             std::unique_ptr<ResponseWriter> writer);

  // Starts the work. `on_worker`: this thread is one of the worker pool's.
  void Prepare(GenerationPlan plan, bool on_worker);
  // Ends the request with `status` unless it has ended.
  void End(const absl::Status& status);
  // Breaks off a call whose write or finish has been pending for longer than `limit`.
  bool CancelIfStalled(absl::Time now, absl::Duration limit);

  // --- Called by the front end
  void OnWritten(bool ok);
  // The client cancelled or went away. The front end still calls OnDone.
  void OnCancelled() { End(CancelReason()); }
  // The connection is gone, and nothing else will be reported.
  void OnDisconnected();
  // Everything is written, or never will be. Leaves the registry, which may destroy the request.
  void OnDone();

  const CallInfo& call() const { return call_; }

 private:
  enum class Phase { kPreparing, kStreaming, kFinished };
  enum class Action { kNone, kWrite, kFinish };
  struct Answer {
    std::shared_ptr<OutputQueue> queue;
    Request waiting;         // of an answer that is not submitted yet
    bool submitted = false;  // or about to be
    bool done = false;
    Usage usage;  // until done: what is known so far
  };

  ActiveRequest(const ServiceContext* services, RequestRegistry* registry, CallInfo call,
                std::unique_ptr<ResponseWriter> writer);
  void BuildAndSubmit();  // on a worker
  absl::StatusOr<std::vector<Request>> BuildPrompts();
  void MakeAnswers(const std::vector<Request>& built);
  absl::Status Submit(int answer, Request request, int* queue_position);
  void SubmitWaiting(const std::vector<int>& answers);
  bool finished() const;

  void Pump();  // takes the next step, if there is one
  Action NextLocked(std::vector<int>* submit) TESSERA_REQUIRES(mutex_);
  // Hands events to the writer until the queues are empty (false) or it is full (true).
  absl::StatusOr<bool> TakeLocked(std::vector<int>* submit) TESSERA_REQUIRES(mutex_);
  Action FinishLocked(const absl::Status& status) TESSERA_REQUIRES(mutex_);
  void CancelLocked() TESSERA_REQUIRES(mutex_);
  void Act(Action action);  // without the lock
  absl::Status CancelReason() const;
  Usage TotalLocked() const TESSERA_REQUIRES(mutex_);

  const ServiceContext* const services_;
  RequestRegistry* const registry_;
  const CallInfo call_;
  const std::unique_ptr<ResponseWriter> writer_;
  GenerationPlan plan_;  // the fetcher's, then the worker's alone

  mutable Mutex mutex_;
  Phase phase_ TESSERA_GUARDED_BY(mutex_) = Phase::kPreparing;
  std::vector<Answer> answers_ TESSERA_GUARDED_BY(mutex_);
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;                   // OnDone was called
  bool broken_off_ TESSERA_GUARDED_BY(mutex_) = false;             // by CancelIfStalled
  absl::Time op_started_ TESSERA_GUARDED_BY(mutex_);               // the last write or finish
  std::optional<absl::Status> forced_ TESSERA_GUARDED_BY(mutex_);  // by End
  absl::Status final_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
