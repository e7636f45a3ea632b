#include "server/client/connection.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "kernels/base.h"

namespace tessera::client {
namespace {

absl::Status CheckAddress(absl::string_view address) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("\"", address, "\" is not HOST:PORT, [IPV6]:PORT or unix:PATH"));
  if (absl::StartsWith(address, "unix:")) return address.size() > 5 ? absl::OkStatus() : bad;
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return bad;
  const absl::string_view host = address.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']' && host.size() > 2;
  if (!bracketed && host.find_first_of(":[]/ ") != absl::string_view::npos) return bad;
  int port = 0;
  const absl::string_view text = address.substr(colon + 1);
  if (text.find_first_not_of("0123456789") != absl::string_view::npos) return bad;
  if (!absl::SimpleAtoi(text, &port) || port < 1 || port > 65535) return bad;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(absl::string_view address) {
  RETURN_IF_ERROR(CheckAddress(address));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetUserAgentPrefix("tessera-client");
  // After a refused connection gRPC waits a second, then ever longer; a server that restarts should
  // be found again soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  return grpc::CreateCustomChannel(std::string(address), grpc::InsecureChannelCredentials(),
                                   arguments);
}

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout <= absl::ZeroDuration()) return;
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
}

}  // namespace tessera::client
