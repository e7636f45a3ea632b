// Authenticates callers by bearer token, and limits what their tenants have in use.
//
// One object serves gRPC and HTTP, so a limit holds over both together. Without a token file every
// caller may do everything. A changed file is read again: the new limits hold for what a tenant has
// in use already, and calls of a removed token run to their end.
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
#include "base/file_watch.h"
#include "base/mutex.h"
#include "server/access/token_table.h"
#include "server/observability/counters.h"

namespace tessera {

// The permission that a call needs.
enum class Permission {
  kAny,        // any known token; takes no permit
  kInference,  // any known token, within its limits; takes a permit
  kAdmin,      // a token with `admin`; takes no permit
};

// Limits one tenant: a number of concurrent answers (permits) and a rate. Threads: safe.
class TenantLimiter {
 public:
  // Takes `permits` more for a call that has `held`, until Release. RESOURCE_EXHAUSTED, with the
  // time until they may fit: too many are taken, or too many were within the last minute.
  // PERMISSION_DENIED: that many never fit. On error `reason` becomes one of RefusalReasons.
  absl::Status Acquire(const Tenant& tenant, int held, int permits, absl::Time now,
                       const char** reason);
  void Release(int permits);

 private:
  Mutex mutex_;
  int taken_ TESSERA_GUARDED_BY(mutex_) = 0;
  // The moment at which all requests so far would have come at the tenant's even pace.
  absl::Time paced_until_ TESSERA_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// The permits of one call. Releases them at its end. Threads: safe, but AcquireMore from one at a
// time.
class Lease {
 public:
  Lease() = default;  // without tokens: no limits
  Lease(std::shared_ptr<const Tenant> tenant, std::shared_ptr<TenantLimiter> limiter, int permits,
        AccessCounters* counters);
  ~Lease() { Release(); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  const std::string& tenant() const { return tenant_->name; }  // "" without tokens
  const TenantLimits& limits() const { return tenant_->limits; }
  // Takes permits for further answers of the call. Errors as TenantLimiter's.
  absl::Status AcquireMore(int permits, absl::Time now);
  // Returns the permits. Called before the answer's last byte is sent: a client that asks again at
  // once must find its permit free.
  void Release();
  // Returns a cache salt that no other tenant can have, whatever salt its clients choose.
  std::string CacheSalt(absl::string_view clients) const;

 private:
  std::shared_ptr<const Tenant> tenant_ = std::make_shared<Tenant>();
  std::shared_ptr<TenantLimiter> limiter_;
  std::atomic<int> permits_{0};
  AccessCounters* counters_ = nullptr;
};

class AccessControl {
 public:
  // `table`: the content of `token_file`; null: no tokens. `counters` outlives the object.
  AccessControl(const std::string& token_file, std::shared_ptr<const TokenTable> table,
                AccessCounters* counters);

  // Lets a call in. `authorization`: the values of all headers of that name. UNAUTHENTICATED: not
  // exactly one known bearer token. PERMISSION_DENIED: no admin. Or an error of TenantLimiter.
  absl::StatusOr<std::shared_ptr<Lease>> Admit(const std::vector<absl::string_view>& authorization,
                                               Permission permission, absl::Time now);
  // Reads a changed token file, as TlsSource::Refresh does.
  absl::StatusOr<bool> Refresh();
  bool on() const { return !token_file_.empty(); }

 private:
  absl::Status Refuse(const char* reason, absl::Status status) const;
  std::shared_ptr<TenantLimiter> Limiter(const std::string& tenant);

  const std::string token_file_;
  AccessCounters* const counters_;
  FileWatch watch_;
  mutable Mutex mutex_;
  std::shared_ptr<const TokenTable> table_ TESSERA_GUARDED_BY(mutex_);
  // Names that leave the file stay here: they may come back, and they are few.
  std::map<std::string, std::shared_ptr<TenantLimiter>> limiters_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
