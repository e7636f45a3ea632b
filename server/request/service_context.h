// What every gRPC service of the daemon works with, and how an RPC ends: counted, logged, answered.
//
// Nothing is owned here: the daemon owns all of it and outlives its services.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/worker_pool.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/access/access.h"
#include "server/api/error_details.h"
#include "server/api/parsed_request.h"
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "server/process/lifecycle.h"
#include "server/request/runtime.h"

namespace tessera {

class ImageFetcher;

struct ServiceContext {
  const ServerConfig* config = nullptr;
  const Runtime* runtime = nullptr;  // empty until SERVING
  Lifecycle* lifecycle = nullptr;
  Access* access = nullptr;
  Metrics* metrics = nullptr;
  Logger* log = nullptr;
  WorkerPool* workers = nullptr;   // bounded: image decoding, tokenising
  WorkerPool* senders = nullptr;   // wakes streams, off the engine's thread
  ImageFetcher* images = nullptr;  // null: no picture is fetched
  int64_t started_unix_seconds = 0;
  const std::string* device = nullptr;  // "cpu (avx2, 2 threads)"
  RequestRules rules;                   // filled with `runtime`
};

// Counts and logs an RPC that ends with `status`, and makes what goes on the wire.
// `method` is a name of RpcMethods (rpc_names.h).
grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view tenant, absl::Time received);

// Access::Admit by the call's metadata.
absl::StatusOr<std::shared_ptr<Grant>> AdmitRpc(const ServiceContext& services,
                                                const grpc::CallbackServerContext& context,
                                                Right right, absl::Time now);

// A unary method: for callers with `right`, runs `body` (an absl::Status() that fills the response)
// and ends the RPC with what it returns. With `pool`, on one of its threads; RESOURCE_EXHAUSTED if
// its queue is full.
template <class Body>
grpc::ServerUnaryReactor* RunUnary(const ServiceContext& services, WorkerPool* pool,
                                   grpc::CallbackServerContext* context, const char* method,
                                   Right right, Body body) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Time received = SteadyNow();
  auto grant = AdmitRpc(services, *context, right, received);
  if (!grant.ok()) {
    reactor->Finish(EndRpc(services, method, grant.status(), "", received));
    return reactor;
  }
  const auto run = [&services, method, received, reactor, grant = *grant, body = std::move(body)] {
    const absl::Status status = body();
    grant->Release();
    reactor->Finish(EndRpc(services, method, status, grant->tenant(), received));
  };
  if (pool == nullptr) {
    run();
  } else if (!pool->TrySubmit(run)) {
    reactor->Finish(EndRpc(
        services, method,
        RetryLater(absl::StatusCode::kResourceExhausted, "too many requests wait to be prepared",
                   reason::kQueueFull, absl::Seconds(1)),
        (*grant)->tenant(), received));
  }
  return reactor;
}

}  // namespace tessera
