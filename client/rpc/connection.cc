#include "client/rpc/connection.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/client_interceptor.h"

namespace tessera::client {
namespace {

using absl::InvalidArgumentError;

constexpr char kTokenVariable[] = "TESSERA_TOKEN";

bool IsUnix(absl::string_view address) { return absl::StartsWith(address, "unix:"); }

// Returns whether the address reaches this machine only. REQUIRES: a valid address.
bool IsLocal(absl::string_view address) {
  const absl::string_view host = address.substr(0, address.rfind(':'));
  // "127.example.com" is a name and may belong to any machine.
  return IsUnix(address) || host == "localhost" || host == "[::1]" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == absl::string_view::npos);
}

absl::Status CheckAddress(absl::string_view address) {
  const absl::Status bad = InvalidArgumentError(
      absl::StrCat("--address: \"", address, "\" is not HOST:PORT, [IPV6]:PORT or unix:PATH"));
  if (IsUnix(address)) return address.size() > 5 ? absl::OkStatus() : bad;
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

absl::Status CheckTls(const Endpoint& endpoint) {
  if (endpoint.tls_cert.empty() != endpoint.tls_key.empty()) {
    return InvalidArgumentError("--tls_cert and --tls_key: give both or neither");
  }
  if (endpoint.tls_ca.empty()) {
    if (endpoint.tls_cert.empty() && endpoint.tls_name.empty()) return absl::OkStatus();
    return InvalidArgumentError("--tls_cert and --tls_name need --tls_ca");
  }
  if (!IsUnix(endpoint.address)) return absl::OkStatus();
  return InvalidArgumentError("--tls_ca: a Unix socket is not encrypted");
}

// Not base/read_file.h, which refuses pipes: `--token_file <(pass show tessera)` must work.
// Reads a file or a pipe, so that `--token_file <(pass show tessera)` works. ReadFile of
// base/read_file.h refuses pipes.
absl::StatusOr<std::string> ReadCredential(absl::string_view option, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty()) {
    return InvalidArgumentError(absl::StrCat("--", option, ": cannot read ", path));
  }
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const Endpoint& endpoint) {
  if (endpoint.tls_ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions files;
  ASSIGN_OR_RETURN(files.pem_root_certs, ReadCredential("tls_ca", endpoint.tls_ca));
  if (!endpoint.tls_cert.empty()) {
    ASSIGN_OR_RETURN(files.pem_cert_chain, ReadCredential("tls_cert", endpoint.tls_cert));
    ASSIGN_OR_RETURN(files.pem_private_key, ReadCredential("tls_key", endpoint.tls_key));
  }
  return grpc::SslCredentials(files);
}

// Puts the token into every call. gRPC's call credentials would refuse every channel without TLS,
// even one to a loopback address.
class TokenSender final : public grpc::experimental::Interceptor {
 public:
  explicit TokenSender(const std::string* header) : header_(header) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", *header_);
    }
    methods->Proceed();
  }

 private:
  const std::string* const header_;
};

class TokenSenders final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenSenders(const std::string& token) : header_(absl::StrCat("Bearer ", token)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new TokenSender(&header_);
  }

 private:
  const std::string header_;
};

}  // namespace

void Endpoint::Register(Options* options, absl::string_view address_help) {
  options->Add("address", "HOST:PORT", &address, address_help);
  options->Add("tls_ca", "FILE", &tls_ca,
               "connect with TLS and trust certificates signed by one of these (PEM), such as "
               "/etc/ssl/certs/ca-certificates.crt");
  options->Add("tls_cert", "FILE", &tls_cert,
               "this client's certificate, if the server asks for one");
  options->Add("tls_key", "FILE", &tls_key, "the private key of --tls_cert");
  options->Add("tls_name", "NAME", &tls_name,
               "the name in the server's certificate, if it differs from --address");
  options->Add("token_file", "FILE", &token_file,
               "a file with the access token; without it, $TESSERA_TOKEN");
  options->Add("allow_plaintext", &allow_plaintext,
               "send the token to another machine without TLS");
}

absl::StatusOr<std::string> FindToken(const Endpoint& endpoint) {
  std::string token, source = absl::StrCat("$", kTokenVariable);
  if (!endpoint.token_file.empty()) {
    ASSIGN_OR_RETURN(token, ReadCredential("token_file", endpoint.token_file));
    source = absl::StrCat("--token_file: ", endpoint.token_file);
  } else if (const char* variable = std::getenv(kTokenVariable); variable != nullptr) {
    token = variable;
  }
  token = std::string(absl::StripAsciiWhitespace(token));
  if (token.empty() && endpoint.token_file.empty()) return "";
  // Other characters could end the header or forge another one.
  const bool good =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 127; });
  if (token.empty() || !good) {
    return InvalidArgumentError(absl::StrCat(source, ": want one token of visible characters"));
  }
  if (endpoint.tls_ca.empty() && !IsLocal(endpoint.address) && !endpoint.allow_plaintext) {
    return InvalidArgumentError(
        absl::StrCat(source, ": the token would travel unencrypted to ", endpoint.address,
                     "; give --tls_ca, or --allow_plaintext if that is meant"));
  }
  return token;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const Endpoint& endpoint) {
  RETURN_IF_ERROR(CheckAddress(endpoint.address));
  RETURN_IF_ERROR(CheckTls(endpoint));
  ASSIGN_OR_RETURN(const std::string token, FindToken(endpoint));
  ASSIGN_OR_RETURN(const auto credentials, Credentials(endpoint));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetUserAgentPrefix("tessera-client");
  // By default gRPC waits a second after a refused connection, and longer after each further one. A
  // server that restarts should be found sooner.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  if (!endpoint.tls_name.empty()) arguments.SetSslTargetNameOverride(endpoint.tls_name);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!token.empty()) interceptors.push_back(std::make_unique<TokenSenders>(token));
  return grpc::experimental::CreateCustomChannelWithInterceptors(
      endpoint.address, credentials, arguments, std::move(interceptors));
}

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout <= absl::ZeroDuration()) return;
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
}

}  // namespace tessera::client
