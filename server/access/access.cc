#include "server/access/access.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

constexpr size_t kMaxTokenBytes = 1024;
constexpr absl::Duration kPeriod = absl::Minutes(1);

// The token of one header "Bearer TOKEN"; empty if it is anything else.
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

absl::Status TenantUsage::Enter(const Tenant& tenant, int held, int answers, absl::Time now,
                                const char** reason) {
  const int most = tenant.limits.concurrent, rate = tenant.limits.requests_per_minute;
  MutexLock lock(mutex_);
  if (most > 0 && running_ + answers > most) {
    *reason = "concurrent";
    const std::string text = absl::StrCat("this token may have ", most, " answers made at once");
    if (held + answers > most) return NotAllowed(text);
    return TenantQuota(tenant.name, text, reason::kTooManyAtOnce, absl::Seconds(1));
  }
  if (rate > 0) {
    // Requests are paced evenly, with a minute's worth in advance. A clock that was set back must
    // not lock the tenant out for longer than that.
    paced_until_ = std::clamp(paced_until_, now, now + kPeriod);
    const absl::Time end = paced_until_ + kPeriod / rate * answers;
    if (end > now + kPeriod) {
      *reason = "rate";
      const std::string text = absl::StrCat("this token may ask ", rate, " times a minute");
      if (held + answers > rate) return NotAllowed(text);
      return TenantQuota(tenant.name, text, reason::kRateLimited, end - now - kPeriod);
    }
    paced_until_ = end;
  }
  running_ += answers;
  return absl::OkStatus();
}

void TenantUsage::Leave(int answers) {
  MutexLock lock(mutex_);
  running_ -= answers;
}

Grant::Grant(std::shared_ptr<const Tenant> tenant, std::shared_ptr<TenantUsage> usage, int answers,
             Metrics* metrics)
    : tenant_(std::move(tenant)), usage_(std::move(usage)), answers_(answers), metrics_(metrics) {}

void Grant::Release() {
  if (usage_ != nullptr) usage_->Leave(answers_.exchange(0));
}

absl::Status Grant::TakeMore(int answers, absl::Time now) {
  if (usage_ == nullptr || answers == 0) return absl::OkStatus();
  const char* reason = "";
  absl::Status status = usage_->Enter(*tenant_, answers_, answers, now, &reason);
  if (status.ok()) {
    answers_ += answers;
  } else {
    metrics_->CountRefusal(reason);
  }
  return status;
}

std::string Grant::Salt(absl::string_view clients) const {
  if (tenant_->name.empty()) return std::string(clients);
  // A name has no colon, so no salt of a client can look like another tenant's.
  return absl::StrCat(tenant_->name, ":", clients);
}

Access::Access(const std::string& token_file, std::shared_ptr<const TokenTable> table,
               Metrics* metrics)
    : token_file_(token_file), metrics_(metrics), watch_({token_file}), table_(std::move(table)) {
  TESSERA_CHECK(token_file_.empty() == (table_ == nullptr));
}

absl::Status Access::Refuse(const char* reason, absl::Status status) const {
  metrics_->CountRefusal(reason);
  return status;
}

std::shared_ptr<TenantUsage> Access::Usage(const std::string& tenant) {
  MutexLock lock(mutex_);
  std::shared_ptr<TenantUsage>& usage = usage_[tenant];
  if (usage == nullptr) usage = std::make_shared<TenantUsage>();
  return usage;
}

absl::StatusOr<std::shared_ptr<Grant>> Access::Admit(
    const std::vector<absl::string_view>& authorization, Right right, absl::Time now) {
  if (!on()) return std::make_shared<Grant>();
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
  // Of two headers another reader in between might have judged the other one.
  const absl::string_view token = authorization.size() == 1 ? BearerToken(authorization[0]) : "";
  const Tenant* found = token.empty() ? nullptr : table->Find(token);
  if (found == nullptr) {
    return Refuse("bad_token", ErrorWithReason(absl::StatusCode::kUnauthenticated,
                                               "this token is not known", reason::kTokenUnknown));
  }
  std::shared_ptr<const Tenant> tenant(table, found);
  if (right == Right::kAdmin && !found->limits.admin) {
    return Refuse("not_admin", NotAllowed("this token has no admin right"));
  }
  if (right != Right::kWork)
    return std::make_shared<Grant>(std::move(tenant), nullptr, 0, metrics_);
  std::shared_ptr<TenantUsage> usage = Usage(found->name);
  const char* reason = "";
  if (absl::Status status = usage->Enter(*found, 0, 1, now, &reason); !status.ok()) {
    return Refuse(reason, std::move(status));
  }
  metrics_->CountTenant(found->name);
  return std::make_shared<Grant>(std::move(tenant), std::move(usage), 1, metrics_);
}

absl::StatusOr<bool> Access::Refresh() {
  if (!watch_.Changed()) return false;
  ASSIGN_OR_RETURN(auto next, TokenTable::Read(token_file_));
  MutexLock lock(mutex_);
  table_ = std::move(next);
  return true;
}

}  // namespace tessera
