// The server that a command talks to: address, TLS, token, and the channel to it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cli/options.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace tessera::client {

inline constexpr char kDefaultAddress[] = "127.0.0.1:8600";
inline constexpr char kDefaultAdminAddress[] = "127.0.0.1:8601";

// The options of every command that talks to a server.
struct Endpoint {
  std::string address;
  std::string tls_ca;             // if not empty, connections use TLS
  std::string tls_cert, tls_key;  // the client's own
  std::string tls_name;           // the expected name in the server's certificate
  std::string token_file;         // if empty, the token is $TESSERA_TOKEN, if set
  bool allow_plaintext = false;

  explicit Endpoint(absl::string_view default_address) : address(default_address) {}
  void Register(Options* options, absl::string_view address_help = "the server");
};

// Returns a channel to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH"; it connects at the first call.
// Every call carries the token. Refuses to send a token to another machine without TLS unless
// `allow_plaintext`. Messages of any size may be received. INVALID_ARGUMENT names the option.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const Endpoint& endpoint);

// Returns the token for `endpoint`, or "" if there is none. Checks it as Connect does.
absl::StatusOr<std::string> FindToken(const Endpoint& endpoint);

// Sets the deadline of the call; 0 sets none.
void SetTimeout(absl::Duration timeout, grpc::ClientContext* context);

}  // namespace tessera::client
