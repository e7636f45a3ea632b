// One gRPC server on one address, with Tessera's transport settings, plain or encrypted.
//
// Threads: one thread starts it and shuts it down. Errors name an address that is taken or invalid.
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
  // Starts to serve `services` and the standard health service. `address`: as --listen. With `tls`,
  // connections are encrypted, except on a Unix socket, which its folder's permissions protect.
  // `services` and `tls` must outlive the listener.
  static absl::StatusOr<std::unique_ptr<Listener>> Start(
      const std::string& address, const ServerConfig& config,
      const std::vector<grpc::Service*>& services, const TlsSource* tls);
  ~Listener();  // Shutdown now

  // Returns the address, with the port that the system chose for port 0.
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

// Sets up gRPC in this process, before the first Listener: the health service, optional reflection,
// and gRPC's own log lines, which go to `log`. `log` must outlive gRPC's use.
void SetUpGrpc(bool reflection, class Logger* log);

}  // namespace tessera
