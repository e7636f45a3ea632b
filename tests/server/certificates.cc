#include "tests/server/certificates.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

void AddExtension(X509* certificate, int id, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value);
  TESSERA_CHECK(extension != nullptr);
  TESSERA_CHECK(X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// Returns the PEM that `write` writes.
template <class F>
std::string Pem(F write) {
  BIO* out = BIO_new(BIO_s_mem());
  TESSERA_CHECK(write(out) == 1);
  char* text = nullptr;
  const auto size = BIO_get_mem_data(out, &text);
  std::string pem(text, static_cast<size_t>(size));
  BIO_free(out);
  return pem;
}

}  // namespace

TestCertificates::TestCertificates() {
  static std::atomic<int> count{0};
  dir_ = absl::StrCat(testing::TempDir(), "certificates.", getpid(), ".", ++count);
  std::filesystem::create_directories(dir_);
  ca_file_ = Path("ca.pem");
  ca_key_.reset(EVP_EC_gen("P-256"));
  TESSERA_CHECK(ca_key_ != nullptr);
  ca_ = Sign(ca_key_, "the test's authority", absl::Hours(1), "");
  Write("ca.pem", Pem([this](BIO* out) { return PEM_write_bio_X509(out, ca_.get()); }));
}

TestCertificates::~TestCertificates() { std::filesystem::remove_all(dir_); }

TestCertificates::Certificate TestCertificates::Sign(const Key& key, const std::string& name,
                                                     absl::Duration lifetime,
                                                     const std::string& hosts) {
  Certificate certificate(X509_new());
  X509* x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), next_serial_++);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), absl::ToInt64Seconds(lifetime));
  X509_set_pubkey(x, key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  const bool root = ca_ == nullptr;
  X509_set_issuer_name(x, X509_get_subject_name(root ? x : ca_.get()));
  AddExtension(x, NID_basic_constraints, root ? "critical,CA:TRUE" : "critical,CA:FALSE");
  if (!root) AddExtension(x, NID_subject_alt_name, hosts.c_str());
  TESSERA_CHECK(X509_sign(x, ca_key_.get(), EVP_sha256()) > 0);
  return certificate;
}

TestCertificates::Pair TestCertificates::Make(const std::string& name, absl::Duration lifetime,
                                              const std::string& hosts) {
  const Key key(EVP_EC_gen("P-256"));
  const Certificate certificate = Sign(key, name, lifetime, hosts);
  Write(name + ".pem", Pem([&](BIO* out) { return PEM_write_bio_X509(out, certificate.get()); }));
  Write(name + ".key", Pem([&](BIO* out) {
          return PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
        }));
  return {Path(name + ".pem"), Path(name + ".key")};
}

void TestCertificates::Write(const std::string& file, const std::string& text) const {
  std::ofstream out(Path(file), std::ios::binary | std::ios::trunc);
  out << text;
  EXPECT_TRUE(out.flush().good()) << file;
}

}  // namespace tessera
