// Certificates that a test makes for itself, in a folder that goes with it: none are kept in the
// tree, where they would expire.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace tessera {

// A certificate authority and what it signs. Threads: one.
class TestCertificates {
 public:
  // PEM files.
  struct Pair {
    std::string cert, key;
  };

  TestCertificates();
  ~TestCertificates();
  TestCertificates(const TestCertificates&) = delete;
  TestCertificates& operator=(const TestCertificates&) = delete;

  const std::string& ca() const { return ca_file_; }
  // Makes a certificate with a new key, for `hosts` (OpenSSL's subjectAltName) and for clients.
  // `name` is that of the subject and the files. Replaces an existing pair of that name.
  Pair Make(const std::string& name, absl::Duration lifetime = absl::Hours(1),
            const std::string& hosts = "DNS:localhost,IP:127.0.0.1");
  std::string Path(const std::string& file) const { return dir_ + "/" + file; }
  void Write(const std::string& file, const std::string& text) const;

 private:
  struct Free {
    void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
    void operator()(X509* p) const { X509_free(p); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;
  // Signed by the authority, or by itself while there is none.
  Certificate Sign(const Key& key, const std::string& name, absl::Duration lifetime,
                   const std::string& hosts);

  std::string dir_, ca_file_;
  long next_serial_ = 1;  // NOLINT(runtime/int): OpenSSL's type
  Key ca_key_;
  Certificate ca_;
};

}  // namespace tessera
