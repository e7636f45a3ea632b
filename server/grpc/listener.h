// One gRPC server on one address, with Tessera's transport settings, plain or encrypted.
//
// Threads: one thread builds and shuts down. Errors: a taken or impossible address, by its text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/access/tls.h"
#include "server/process/config.h"

namespace tessera {

class Listener {
 public:
  // Starts serving `services` (not owned, must outlive the listener) beside the standard health
  // service. `address` as --listen. With `tls` (not owned either) the connection is encrypted, but
  // on a Unix socket, which its folder's permissions guard.
  static absl::StatusOr<std::unique_ptr<Listener>> Start(
      const std::string& address, const ServerConfig& config,
      const std::vector<grpc::Service*>& services, const TlsSource* tls);
  ~Listener();  // Shutdown now

  // The address with the port that was chosen for port 0.
  const std::string& address() const { return address_; }
  int port() const { return port_; }
  grpc::HealthCheckServiceInterface* health() { return server_->GetHealthCheckService(); }

  // Stops accepting, waits for calls and connections until `deadline`, then cancels calls. Returns
  // once every call is done.
  void Shutdown(absl::Time deadline);

 private:
  Listener(std::shared_ptr<grpc::ServerCredentials> credentials,
           std::unique_ptr<grpc::Server> server, std::string address, int port);

  const std::shared_ptr<grpc::ServerCredentials> credentials_;  // outlives server_
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_;
};

// Process-wide gRPC set-up, before the first Listener: the health service, reflection if wanted,
// and gRPC's own log lines into `log` (which must outlive gRPC's use).
void SetUpGrpc(bool reflection, class Logger* log);

}  // namespace tessera
