// Who calls, and whether he may: bearer tokens, and how much their tenants have in use.
//
// One object stands behind every door, gRPC's and HTTP's, so limits hold over both together.
// Without a token file everybody may do everything. Files that change are read again; what a tenant
// has in use goes on under the new limits, and calls of a token that is gone run to their end.
// Threads: Refresh from one thread, the rest from any. Errors: as clients see them, with RetryInfo.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "base/file_watch.h"
#include "server/access/token_table.h"
#include "server/observability/metrics.h"

namespace tessera {

enum class Right {
  kKnown,  // any token; counts for nothing
  kWork,   // any token, within its limits
  kAdmin,  // a token with admin; counts for nothing
};

// What a tenant has in use. Threads: safe.
class TenantUsage {
 public:
  // OK: `answers` more run now, until Leave, of a call that has `held` already. RESOURCE_EXHAUSTED,
  // with the time until it could fit: too many run, or came within the last minute.
  // PERMISSION_DENIED: that many never fit. `reason` becomes a value of RefusalReasons.
  absl::Status Enter(const Tenant& tenant, int held, int answers, absl::Time now,
                     const char** reason);
  void Leave(int answers);

 private:
  Mutex mutex_;
  int running_ TESSERA_GUARDED_BY(mutex_) = 0;
  // The moment at which all requests so far would have come at the tenant's even pace.
  absl::Time paced_until_ TESSERA_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// Leave to run, for one call. Threads: safe, but TakeMore from one at a time.
class Grant {
 public:
  Grant() = default;  // everything, to everybody
  Grant(std::shared_ptr<const Tenant> tenant, std::shared_ptr<TenantUsage> usage, int answers,
        Metrics* metrics);
  ~Grant() { Release(); }
  Grant(const Grant&) = delete;
  Grant& operator=(const Grant&) = delete;

  const std::string& tenant() const { return tenant_->name; }  // "" without tokens
  const TenantLimits& limits() const { return tenant_->limits; }
  // The call turns out to want further answers. Errors as TenantUsage's.
  absl::Status TakeMore(int answers, absl::Time now);
  // Gives its places back: before the answer's last byte goes out, or a client that asks one thing
  // after another would find its own place taken.
  void Release();
  // A cache salt under which no other tenant can ever ask, whatever clients choose for theirs.
  std::string Salt(absl::string_view clients) const;

 private:
  std::shared_ptr<const Tenant> tenant_ = std::make_shared<Tenant>();
  std::shared_ptr<TenantUsage> usage_;
  std::atomic<int> answers_{0};
  Metrics* metrics_ = nullptr;
};

class Access {
 public:
  // `table` is what was read from `token_file`; null: no tokens. `metrics` outlives the object.
  Access(const std::string& token_file, std::shared_ptr<const TokenTable> table, Metrics* metrics);

  // `authorization`: the values of all headers of that name. UNAUTHENTICATED: not one bearer token
  // that is known; PERMISSION_DENIED: not an admin's; or an error of TenantUsage.
  absl::StatusOr<std::shared_ptr<Grant>> Admit(const std::vector<absl::string_view>& authorization,
                                               Right right, absl::Time now);
  // As TlsSource::Refresh.
  absl::StatusOr<bool> Refresh();
  bool on() const { return !token_file_.empty(); }

 private:
  absl::Status Refuse(const char* reason, absl::Status status) const;
  std::shared_ptr<TenantUsage> Usage(const std::string& tenant);

  const std::string token_file_;
  Metrics* const metrics_;
  FileWatch watch_;
  mutable Mutex mutex_;
  std::shared_ptr<const TokenTable> table_ TESSERA_GUARDED_BY(mutex_);
  // Kept for names that leave the file: they may come back, and are few.
  std::map<std::string, std::shared_ptr<TenantUsage>> usage_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
