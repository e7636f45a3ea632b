#include "base/digest.h"

#include <openssl/evp.h>

#include <cstring>

#include "absl/strings/escaping.h"
#include "base/base.h"

namespace tessera {

struct Hasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

size_t DigestHash::operator()(const Digest& d) const {
  size_t h;
  std::memcpy(&h, d.data(), sizeof h);
  return h;
}

Hasher::Hasher() : state_(std::make_unique<State>()) {
  TESSERA_CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}
Hasher::~Hasher() = default;

Hasher& Hasher::Add(const void* data, size_t bytes) {
  TESSERA_CHECK(EVP_DigestUpdate(state_->context, data, bytes) == 1);
  return *this;
}

Hasher& Hasher::AddString(absl::string_view s) {
  Add(static_cast<int64_t>(s.size()));
  return Add(s.data(), s.size());
}

Digest Hasher::Finish() {
  Digest d;
  TESSERA_CHECK(EVP_DigestFinal_ex(state_->context, d.data(), nullptr) == 1);
  return d;
}

std::string HexDigest(const Digest& d) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(d.data()), d.size()));
}

}  // namespace tessera
