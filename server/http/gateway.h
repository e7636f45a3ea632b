// The HTTP gateway: OpenAI-compatible routes over the same engine as gRPC, in the same process.
//
//   POST /v1/chat/completions, /v1/completions   answers, as server-sent events or whole
//   GET  /v1/models, /v1/models/{id}             the model and its KV policies
//   POST /tokenize, /detokenize                  ids and text
//   GET  /health                                 200 when ready, else 503; the body says if live
//   GET  /version, /metrics
//
// With tokens, all but /health need one ("authorization: Bearer ..."), and /metrics an admin's. A
// caller without one is rejected before the request's body is read. A route is one row of the table
// in gateway.cc. Threads: HttpServer's; nothing here blocks. Lifetime: `services` and `registry`
// outlive the gateway.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/http_server.h"
#include "server/request/request_registry.h"
#include "server/request/service_context.h"

namespace tessera {

class Gateway {
 public:
  // Listens on `address`, as --http_listen. Encrypted with `tls`, which outlives the gateway.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const std::string& address,
                                                        const ServiceContext* services,
                                                        RequestRegistry* registry,
                                                        const TlsSource* tls);
  // Returns host:port, with the port that the system chose for port 0.
  const std::string& address() const { return address_; }
  void Stop(absl::Time deadline) { server_->Stop(deadline); }

 private:
  Gateway(const ServiceContext* services, RequestRegistry* registry)
      : services_(services), registry_(registry) {}
  std::optional<HttpResponse> Refuse(const HttpRequest& head);
  void Handle(std::shared_ptr<HttpExchange> exchange);

  const ServiceContext* const services_;
  RequestRegistry* const registry_;
  std::string address_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace tessera
