// gRPC server credentials over a TlsSource.
//
// gRPC's C++ file watcher drops its working pair before it tries a new one, so a broken renewal
// would close the port. Its core can ask for the certificates at each handshake and keeps the old
// ones when there are none: these credentials do that, so that gRPC and HTTP serve the same.
#pragma once

#include <memory>

#include "grpcpp/security/server_credentials.h"
#include "server/access/tls.h"

namespace tessera {

// For one port of one server. `source`, and the credentials, must outlive it: the builder lets go
// of them. Clients need a certificate if the source says so.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsSource* source);

}  // namespace tessera
