// SHA-256 (libcrypto) as the identity of cached content: images and prefix pages. Full width, so
// that a collision cannot be made by a client.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

using Digest = std::array<uint8_t, 32>;

struct DigestHash {  // for hash maps: the digest is uniform already
  size_t operator()(const Digest& d) const;
};

// Incremental SHA-256. One thread.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& Add(const void* data, size_t bytes);
  Hasher& Add(int64_t value) { return Add(&value, sizeof value); }
  // Length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
  Hasher& AddString(absl::string_view s);
  Digest Finish();  // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string HexDigest(const Digest& d);

}  // namespace tessera
