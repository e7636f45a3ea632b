// The content of --token_file: who may call, and how much.
//
//   # SHA-256 of the token, the tenant's name, its limits
//   2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 alice requests_per_minute=60
//   486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5afa5a79d3aa1c4d ops   admin
//
// The file has hashes, never tokens. A hash without salt is enough for a token that cannot be
// guessed, so machines make the tokens (32 random bytes). Several lines may name one tenant with
// the same limits: so a token is replaced without a gap.
// Threads: immutable. Errors: "line 3: ...".
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"

namespace tessera {

// The limits of one tenant; 0 and empty: no limit.
struct TenantLimits {
  int requests_per_minute = 0;        // also how many may come at once after a quiet minute
  int concurrent = 0;                 // answers at once
  int max_tokens = 0;                 // of one answer
  std::vector<std::string> policies;  // names of KV policies, sorted
  bool admin = false;                 // tessera.v1.Control, and /metrics of the HTTP port

  bool operator==(const TenantLimits&) const = default;
};

struct Tenant {
  std::string name;  // 1 to 64 of A-Z a-z 0-9 . _ -
  TenantLimits limits;
};

class TokenTable {
 public:
  static absl::StatusOr<std::shared_ptr<const TokenTable>> Parse(absl::string_view text);
  // Parses a file. Errors name it.
  static absl::StatusOr<std::shared_ptr<const TokenTable>> Read(const std::string& path);

  // Returns the token's tenant, or null. Takes the same time whether or not the table has it, and
  // at any position.
  const Tenant* Find(absl::string_view token) const;
  // Each tenant once, in the file's order.
  const std::vector<Tenant>& tenants() const { return tenants_; }

 private:
  struct Entry {
    Digest digest;
    size_t tenant;  // index into tenants_
  };
  absl::Status AddLine(absl::string_view line);

  std::vector<Entry> entries_;
  std::vector<Tenant> tenants_;
};

}  // namespace tessera
