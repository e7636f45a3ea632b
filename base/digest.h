// SHA-256 (libcrypto) as the identity of cached content: images and prefix pages. The full 256 bits
// are kept, so that a client cannot construct a collision.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

using Digest = std::array<uint8_t, 32>;

// Hashes a digest for hash maps by its first bytes, which are uniform already.
struct DigestHash {
  size_t operator()(const Digest& d) const;
};

// Computes SHA-256 incrementally. Threads: one.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& Add(const void* data, size_t bytes);
  Hasher& Add(int64_t value) { return Add(&value, sizeof value); }
  // Adds the length first, so that ("ab", "c") and ("a", "bc") differ.
  Hasher& AddString(absl::string_view s);
  // REQUIRES: called once, last.
  Digest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string HexDigest(const Digest& d);

}  // namespace tessera
