// One Generate call: from the request's arrival to the last byte of its answer.
//
//   reaction:  validate -> fetcher: pictures named by URL, if any
//              -> worker: decode pictures, build the prompt, submit -> write `accepted`
//   engine:    output_queue notifies -> sender thread: take an event, start a write
//   reaction:  write done -> take the next event ... -> last event: finish
//
// Rules that gRPC sets (1.51): one write in flight, exactly one Finish, OnCancel may run beside
// OnWriteDone, nothing may block a reaction, `this` lives until OnDone. So: every decision is taken
// under mutex_, by whoever sees the chance first; the gRPC call that follows is made outside it,
// and nothing else can end the object before that call. Lifetime: the registry holds the stream
// until OnDone; the engine's output_queue knows it weakly.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "engine/request/output_queue.h"
#include "grpcpp/support/server_callback.h"
#include "server/request/service_context.h"
#include "server/request/stream_registry.h"
#include "tessera/v1/inference.pb.h"

namespace tessera {

class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                             public ActiveCall,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // Takes over the content of `request`.
  GenerateStream(const ServiceContext* services, StreamRegistry* registry,
                 grpc::CallbackServerContext* context, v1::GenerateRequest request);

  void Start();  // once, from the method's handler

  // --- ActiveCall
  std::string id() const override;
  void End(const absl::Status& status) override;
  bool CancelIfStalled(absl::Time now, absl::Duration limit) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  enum class Phase { kPreparing, kStreaming, kFinished };
  enum class Action { kNone, kWrite, kWriteLast, kFinish };

  absl::Status Admit();  // in the reaction: cheap checks
  void Prepare();        // on a worker
  absl::Status BuildAndSubmit(v1::Accepted* accepted);
  void Pump();                                   // on a sender
  Action NextLocked() TESSERA_REQUIRES(mutex_);  // decides what to do with what is there
  Action FinishLocked(const absl::Status& status) TESSERA_REQUIRES(mutex_);
  void Act(Action action);
  absl::Status CancelReason() const;

  const ServiceContext* const services_;
  StreamRegistry* const registry_;
  grpc::CallbackServerContext* const context_;
  const absl::Time received_;
  absl::Time deadline_;
  const std::string peer_, trace_;
  std::shared_ptr<Grant> grant_;  // null: not let in; set under mutex_, once
  ReplyOptions reply_;
  std::shared_ptr<OutputQueue> output_queue_;

  // The fetcher's, then the worker's alone, once Start has returned.
  v1::GenerateRequest request_;
  Request engine_request_;

  mutable Mutex mutex_;
  std::string id_ TESSERA_GUARDED_BY(mutex_);
  Phase phase_ TESSERA_GUARDED_BY(mutex_) = Phase::kPreparing;
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;                   // context_ is gone
  bool given_up_ TESSERA_GUARDED_BY(mutex_) = false;               // by CancelIfStalled
  absl::Time op_started_ TESSERA_GUARDED_BY(mutex_);               // of the last write or finish
  std::optional<absl::Status> forced_ TESSERA_GUARDED_BY(mutex_);  // by End
  std::optional<Event> last_ TESSERA_GUARDED_BY(mutex_);
  absl::Status final_ TESSERA_GUARDED_BY(mutex_);
  v1::GenerateResponse response_;  // of the write in flight
};

}  // namespace tessera
