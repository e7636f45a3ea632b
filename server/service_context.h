// What every gRPC service of the daemon works with, and how an RPC ends: counted, logged, answered.
//
// Nothing is owned here: the daemon owns all of it and outlives its services.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/config.h"
#include "server/convert.h"
#include "server/error_details.h"
#include "server/lifecycle.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/runtime.h"
#include "server/worker_pool.h"

namespace tessera {

struct ServiceContext {
  const ServerConfig* config = nullptr;
  const Runtime* runtime = nullptr;  // empty until SERVING
  Lifecycle* lifecycle = nullptr;
  Metrics* metrics = nullptr;
  Logger* log = nullptr;
  WorkerPool* workers = nullptr;  // bounded: image decoding, tokenising
  WorkerPool* senders = nullptr;  // wakes streams, off the engine's thread
  int64_t started_unix_seconds = 0;
  const std::string* device = nullptr;  // "cpu (avx2, 2 threads)"
  ConvertOptions convert;               // filled with `runtime`
};

// Counts and logs an RPC that ends with `status`, and makes what goes on the wire.
// `method` is a name of RpcMethods (rpc_names.h).
grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view request_id, absl::Time received);

// A unary method: runs `body` (an absl::Status() that fills the response) and ends the RPC with
// what it returns. With `pool`, on one of its threads; RESOURCE_EXHAUSTED if its queue is full.
template <class Body>
grpc::ServerUnaryReactor* RunUnary(const ServiceContext& services, WorkerPool* pool,
                                   grpc::CallbackServerContext* context, const char* method,
                                   Body body) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Time received = absl::Now();
  const auto run = [&services, method, received, reactor, body = std::move(body)] {
    reactor->Finish(EndRpc(services, method, body(), "", received));
  };
  if (pool == nullptr) {
    run();
  } else if (!pool->TrySubmit(run)) {
    reactor->Finish(EndRpc(
        services, method,
        RetryLater(absl::StatusCode::kResourceExhausted, "too many requests wait to be prepared",
                   reason::kQueueFull, absl::Seconds(1)),
        "", received));
  }
  return reactor;
}

}  // namespace tessera
