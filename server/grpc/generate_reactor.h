// The gRPC front end of Generate: reads the call's metadata, and writes an ActiveRequest's answers.
//
// gRPC's rules (1.51): one write in flight, exactly one Finish, OnCancel may run during
// OnWriteDone, nothing may block a reaction, and the reactor lives until OnDone. ActiveRequest
// keeps them. Lifetime: the request owns the reactor, and the registry holds the request.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/api/reply.h"
#include "server/request/request_registry.h"
#include "server/request/response_writer.h"
#include "server/request/service_context.h"
#include "tessera/v1/inference.pb.h"

namespace tessera {

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public ResponseWriter {
 public:
  // Starts a call and returns its reactor. `request` is used up.
  static GenerateReactor* Start(const ServiceContext* services, RequestRegistry* registry,
                                grpc::CallbackServerContext* context, v1::GenerateRequest request);

  // --- ResponseWriter
  void Accept(const std::vector<AcceptedPrompt>& prompts, int answers_each) override;
  bool Add(int answer, Event event) override;
  bool HasPending() const override { return pending_; }
  void Break() override { context_->TryCancel(); }
  void Write() override;
  void Finish(const absl::Status& status) override;
  EndLabels CountEnd(const absl::Status& status) override;

  // --- ServerWriteReactor
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(const ServiceContext* services, grpc::CallbackServerContext* context)
      : services_(services), context_(context) {}

  const ServiceContext* const services_;
  grpc::CallbackServerContext* const context_;
  ReplyOptions reply_;
  bool pending_ = false;           // response_ waits to be written
  std::optional<Event> last_;      // the event with `done`
  v1::GenerateResponse response_;  // composed, or of the write in flight
};

}  // namespace tessera
