#include "server/grpc/grpc_tls.h"

#include <string>
#include <utility>

#include "base/base.h"
#include "grpc/grpc.h"
#include "grpc/grpc_security.h"

namespace tessera {
namespace {

class ReloadingCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadingCredentials(const TlsSource* source)
      : source_(source),
        core_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                source->needs_client_certificate()
                    ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                    : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
                Fetch, this))) {
    TESSERA_CHECK(core_ != nullptr);
  }
  ~ReloadingCredentials() override { grpc_server_credentials_release(core_); }

  // Tokens are checked by the services, which also serve plain connections on loopback.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    TESSERA_CHECK(false);
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), core_);
  }

  // At each handshake, under the port's own lock.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    auto* that = static_cast<ReloadingCredentials*>(self);
    auto now = that->source_->current();
    if (now == that->given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {now->key.c_str(), now->cert.c_str()};
    // The core wants roots even where clients are not asked, and does not use them then.
    const std::string& roots = now->client_ca.empty() ? now->cert : now->client_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    that->given_ = std::move(now);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const TlsSource* const source_;
  std::shared_ptr<const TlsMaterial> given_;  // what the port has
  grpc_server_credentials* const core_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsSource* source) {
  return std::make_shared<ReloadingCredentials>(source);
}

}  // namespace tessera
