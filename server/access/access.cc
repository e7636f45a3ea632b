#include "server/access/access.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

constexpr size_t kMaxTokenBytes = 1024;
constexpr absl::Duration kPeriod = absl::Minutes(1);

// Returns the token of a header "Bearer TOKEN", or an empty view for anything else.
absl::string_view BearerToken(absl::string_view header) {
  const size_t space = header.find(' ');
  if (space == absl::string_view::npos ||
      !absl::EqualsIgnoreCase(header.substr(0, space), "bearer")) {
    return "";
  }
  const absl::string_view token = absl::StripAsciiWhitespace(header.substr(space));
  return token.size() <= kMaxTokenBytes ? token : "";
}

}  // namespace

absl::Status TenantLimiter::Acquire(const Tenant& tenant, int held, int permits, absl::Time now,
                                    const char** reason) {
  const int most = tenant.limits.concurrent, rate = tenant.limits.requests_per_minute;
  MutexLock lock(mutex_);
  if (most > 0 && taken_ + permits > most) {
    *reason = "concurrent";
    const std::string text = absl::StrCat("this token may have ", most, " answers at once");
    if (held + permits > most) return NotAllowed(text);
    return TenantQuota(tenant.name, text, reason::kTooManyAtOnce, absl::Seconds(1));
  }
  if (rate > 0) {
    // The pace is even, with a minute's worth in advance. A clock that was set back must not lock
    // the tenant out for longer than that.
    paced_until_ = std::clamp(paced_until_, now, now + kPeriod);
    const absl::Time end = paced_until_ + kPeriod / rate * permits;
    if (end > now + kPeriod) {
      *reason = "rate";
      const std::string text = absl::StrCat("this token may ask ", rate, " times a minute");
      if (held + permits > rate) return NotAllowed(text);
      return TenantQuota(tenant.name, text, reason::kRateLimited, end - now - kPeriod);
    }
    paced_until_ = end;
  }
  taken_ += permits;
  return absl::OkStatus();
}

void TenantLimiter::Release(int permits) {
  MutexLock lock(mutex_);
  taken_ -= permits;
}

Lease::Lease(std::shared_ptr<const Tenant> tenant, std::shared_ptr<TenantLimiter> limiter,
             int permits, AccessCounters* counters)
    : tenant_(std::move(tenant)),
      limiter_(std::move(limiter)),
      permits_(permits),
      counters_(counters) {}

void Lease::Release() {
  if (limiter_ != nullptr) limiter_->Release(permits_.exchange(0));
}

absl::Status Lease::AcquireMore(int permits, absl::Time now) {
  if (limiter_ == nullptr || permits == 0) return absl::OkStatus();
  const char* reason = "";
  absl::Status status = limiter_->Acquire(*tenant_, permits_, permits, now, &reason);
  if (status.ok()) {
    permits_ += permits;
  } else {
    counters_->CountRefusal(reason);
  }
  return status;
}

std::string Lease::CacheSalt(absl::string_view clients) const {
  if (tenant_->name.empty()) return std::string(clients);
  // Names contain no colon, so no client's salt can look like another tenant's.
  return absl::StrCat(tenant_->name, ":", clients);
}

AccessControl::AccessControl(const std::string& token_file, std::shared_ptr<const TokenTable> table,
                             AccessCounters* counters)
    : token_file_(token_file), counters_(counters), watch_({token_file}), table_(std::move(table)) {
  TESSERA_CHECK(token_file_.empty() == (table_ == nullptr));
}

absl::Status AccessControl::Refuse(const char* reason, absl::Status status) const {
  counters_->CountRefusal(reason);
  return status;
}

std::shared_ptr<TenantLimiter> AccessControl::Limiter(const std::string& tenant) {
  MutexLock lock(mutex_);
  std::shared_ptr<TenantLimiter>& limiter = limiters_[tenant];
  if (limiter == nullptr) limiter = std::make_shared<TenantLimiter>();
  return limiter;
}

absl::StatusOr<std::shared_ptr<Lease>> AccessControl::Admit(
    const std::vector<absl::string_view>& authorization, Permission permission, absl::Time now) {
  if (!on()) return std::make_shared<Lease>();
  if (authorization.empty()) {
    return Refuse("no_token", ErrorWithReason(absl::StatusCode::kUnauthenticated,
                                              "want a token: authorization: Bearer TOKEN",
                                              reason::kTokenMissing));
  }
  std::shared_ptr<const TokenTable> table;
  {
    MutexLock lock(mutex_);
    table = table_;
  }
  // A proxy in between may have checked the other one of two headers.
  const absl::string_view token = authorization.size() == 1 ? BearerToken(authorization[0]) : "";
  const Tenant* found = token.empty() ? nullptr : table->Find(token);
  if (found == nullptr) {
    return Refuse("bad_token", ErrorWithReason(absl::StatusCode::kUnauthenticated,
                                               "this token is not known", reason::kTokenUnknown));
  }
  std::shared_ptr<const Tenant> tenant(table, found);
  if (permission == Permission::kAdmin && !found->limits.admin) {
    return Refuse("not_admin", NotAllowed("this token has no admin permission"));
  }
  if (permission != Permission::kInference)
    return std::make_shared<Lease>(std::move(tenant), nullptr, 0, counters_);
  std::shared_ptr<TenantLimiter> limiter = Limiter(found->name);
  const char* reason = "";
  if (absl::Status status = limiter->Acquire(*found, 0, 1, now, &reason); !status.ok()) {
    return Refuse(reason, std::move(status));
  }
  counters_->CountTenant(found->name);
  return std::make_shared<Lease>(std::move(tenant), std::move(limiter), 1, counters_);
}

absl::StatusOr<bool> AccessControl::Refresh() {
  if (!watch_.Changed()) return false;
  ASSIGN_OR_RETURN(auto next, TokenTable::Read(token_file_));
  MutexLock lock(mutex_);
  table_ = std::move(next);
  return true;
}

}  // namespace tessera
