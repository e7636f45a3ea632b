#include "server/access/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/read_file.h"

namespace tessera {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

struct Free {
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

// OpenSSL's default asks at the terminal for an encrypted key's password.
int NoPassword(char*, int, int, void*) { return 0; }

Owned<BIO> Reader(const std::string& pem) {
  return Owned<BIO>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

absl::Status Wrong(const std::string& path, absl::string_view what) {
  const unsigned long error = ERR_peek_last_error();  // NOLINT(runtime/int): OpenSSL's type
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": ", what, reason == nullptr ? "" : absl::StrCat(" (", reason, ")")));
}

absl::StatusOr<std::vector<Owned<X509>>> ReadCertificates(const std::string& path,
                                                          const std::string& pem) {
  ERR_clear_error();
  const Owned<BIO> reader = Reader(pem);
  std::vector<Owned<X509>> all;
  while (X509* one = PEM_read_bio_X509(reader.get(), nullptr, NoPassword, nullptr)) {
    all.emplace_back(one);
  }
  // OpenSSL reports the end of the file as this error.
  const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (all.empty() || !ended) return Wrong(path, "no certificate, or a broken one");
  ERR_clear_error();
  return all;
}

absl::Time NotAfter(const X509* certificate) {
  std::tm time{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) != 1) return absl::InfiniteFuture();
  return absl::FromTM(time, absl::UTCTimeZone());
}

// Rejects a client that offers protocols but not ours (RFC 7301).
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_length,
                   const unsigned char* offered, unsigned int offered_length, void*) {
  static constexpr unsigned char kHttp[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kHttp, sizeof(kHttp) - 1, offered,
                            offered_length) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

absl::Status UseCertificate(const TlsPaths& paths, TlsMaterial* material) {
  SSL_CTX* context = material->http.get();
  ASSIGN_OR_RETURN(auto chain, ReadCertificates(paths.cert, material->cert));
  material->not_after = NotAfter(chain.front().get());
  if (SSL_CTX_use_certificate(context, chain.front().get()) != 1) {
    return Wrong(paths.cert, "not a certificate that a server can use");
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1) {
      return Wrong(paths.cert, "a broken chain");
    }
  }
  const Owned<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Reader(material->key).get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) return Wrong(paths.key, "no private key, or an encrypted one");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return Wrong(paths.key, absl::StrCat("not the key of the certificate in ", paths.cert));
  }
  return absl::OkStatus();
}

absl::Status AskClients(const TlsPaths& paths, TlsMaterial* material) {
  SSL_CTX* context = material->http.get();
  ASSIGN_OR_RETURN(const auto roots, ReadCertificates(paths.client_ca, material->client_ca));
  for (const Owned<X509>& root : roots) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) != 1 ||
        SSL_CTX_add_client_CA(context, root.get()) != 1) {
      return Wrong(paths.client_ca, "not a certificate that can sign others");
    }
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsMaterial>> ReadTls(const TlsPaths& paths) {
  auto material = std::make_shared<TlsMaterial>();
  ASSIGN_OR_RETURN(material->cert, ReadFile(paths.cert, kMaxPemBytes));
  ASSIGN_OR_RETURN(material->key, ReadFile(paths.key, kMaxPemBytes));
  material->http = std::shared_ptr<SSL_CTX>(SSL_CTX_new(TLS_server_method()), Free());
  SSL_CTX* context = material->http.get();
  TESSERA_CHECK(context != nullptr);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(
      context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_alpn_select_cb(context, ChooseProtocol, nullptr);
  // This context has its own ticket key: after files were replaced, a client does a full handshake.
  // Without a session id context, clients with certificates could not resume at all.
  static constexpr unsigned char kSessions[] = "tessera";
  SSL_CTX_set_session_id_context(context, kSessions, sizeof(kSessions) - 1);
  RETURN_IF_ERROR(UseCertificate(paths, material.get()));
  if (!paths.client_ca.empty()) {
    ASSIGN_OR_RETURN(material->client_ca, ReadFile(paths.client_ca, kMaxPemBytes));
    RETURN_IF_ERROR(AskClients(paths, material.get()));
  }
  return material;
}

TlsSource::TlsSource(const TlsPaths& paths)
    : paths_(paths), watch_({paths.cert, paths.key, paths.client_ca}) {}

absl::StatusOr<std::unique_ptr<TlsSource>> TlsSource::Open(const TlsPaths& paths) {
  std::unique_ptr<TlsSource> source(new TlsSource(paths));
  ASSIGN_OR_RETURN(auto first, ReadTls(paths));
  MutexLock lock(source->mutex_);
  source->current_ = std::move(first);
  return source;
}

std::shared_ptr<const TlsMaterial> TlsSource::current() const {
  MutexLock lock(mutex_);
  return current_;
}

absl::StatusOr<bool> TlsSource::Refresh() {
  if (!watch_.Changed()) return false;
  ASSIGN_OR_RETURN(auto next, ReadTls(paths_));
  MutexLock lock(mutex_);
  current_ = std::move(next);
  return true;
}

}  // namespace tessera
