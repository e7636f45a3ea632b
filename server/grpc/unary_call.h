// How unary gRPC methods admit their caller, run and end. Threads: safe.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/worker_pool.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/access/access.h"
#include "server/request/admission.h"
#include "server/request/service_context.h"

namespace tessera {

// Counts and logs an RPC that ends with `status`, and returns the status for the wire. `method` is
// a name of RpcMethods (rpc_names.h).
grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view tenant, absl::Time received);

// Calls AccessControl::Admit with the call's metadata.
absl::StatusOr<std::shared_ptr<Lease>> AdmitRpc(const ServiceContext& services,
                                                const grpc::CallbackServerContext& context,
                                                Permission permission, absl::Time now);

// Admits the caller, runs `body` (an absl::Status() that fills the response), and ends the RPC with
// the status that it returns. With `pool`, the body runs on one of its threads; RESOURCE_EXHAUSTED
// if its queue is full.
template <class Body>
grpc::ServerUnaryReactor* RunUnary(const ServiceContext& services, WorkerPool* pool,
                                   grpc::CallbackServerContext* context, const char* method,
                                   Permission permission, Body body) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Time received = SteadyNow();
  auto lease = AdmitRpc(services, *context, permission, received);
  if (!lease.ok()) {
    reactor->Finish(EndRpc(services, method, lease.status(), "", received));
    return reactor;
  }
  const auto run = [&services, method, received, reactor, lease = *lease, body = std::move(body)] {
    const absl::Status status = body();
    lease->Release();
    reactor->Finish(EndRpc(services, method, status, lease->tenant(), received));
  };
  if (pool == nullptr) {
    run();
  } else if (!pool->TrySubmit(run)) {
    reactor->Finish(EndRpc(services, method, TooManyToPrepare(), (*lease)->tenant(), received));
  }
  return reactor;
}

}  // namespace tessera
