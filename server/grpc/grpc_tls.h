// gRPC server credentials from a TlsSource.
//
// gRPC's C++ file watcher drops its working pair before it tries a new one, so a broken renewal
// would close the port. gRPC's core can ask for the certificates at each handshake and keeps the
// old ones if there are none. These credentials do that, so gRPC and HTTP serve the same
// certificate.
#pragma once

#include <memory>

#include "grpcpp/security/server_credentials.h"
#include "server/access/tls.h"

namespace tessera {

// Makes credentials for one port of one server. `source` and the credentials must outlive the
// server, because the builder releases them. Clients need a certificate if the source says so.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsSource* source);

}  // namespace tessera
