// Which server a command talks to, how it proves who both are, and the channel to it.
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

// The options that every command with a server has.
struct Endpoint {
  std::string address;
  std::string tls_ca;             // not empty: encrypted
  std::string tls_cert, tls_key;  // the client's own
  std::string tls_name;
  std::string token_file;  // empty: $TESSERA_TOKEN, if that is set
  bool allow_plaintext = false;

  explicit Endpoint(absl::string_view default_address) : address(default_address) {}
  void Register(Options* options, absl::string_view address_help = "the server");
};

// A channel to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH"; it connects at the first call. The token
// goes with every call, and never without encryption to another machine unless that is allowed by
// name. Messages of any size may be received. Errors name the option.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const Endpoint& endpoint);

// The token that goes to `endpoint`, checked as Connect checks it; "" if there is none.
absl::StatusOr<std::string> FindToken(const Endpoint& endpoint);

// Sets the call's deadline; 0 sets none.
void SetTimeout(absl::Duration timeout, grpc::ClientContext* context);

}  // namespace tessera::client
