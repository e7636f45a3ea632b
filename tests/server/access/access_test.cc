// Who may call and how much, without a server and with a clock of the test's own.
#include "server/access/access.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/api/error_details.h"
#include "server/observability/metrics.h"
#include "tests/server/certificates.h"

namespace tessera {
namespace {

std::string Line(absl::string_view token, absl::string_view rest) {
  return absl::StrCat(HexDigest(Hasher().Add(token.data(), token.size()).Finish()), " ", rest,
                      "\n");
}

struct AccessTest : testing::Test {
  void Use(const std::string& text) {
    folder.Write("tokens", text);
    auto table = TokenTable::Read(folder.Path("tokens"));
    ASSERT_TRUE(table.ok()) << table.status();
    access = std::make_unique<AccessControl>(folder.Path("tokens"), *table, &metrics);
  }
  absl::StatusOr<std::shared_ptr<Lease>> Ask(const std::string& token,
                                             Permission permission = Permission::kInference) {
    const std::string header = "Bearer " + token;
    return access->Admit({header}, permission, now);
  }
  absl::StatusCode Code(const std::string& token, Permission permission = Permission::kInference) {
    return Ask(token, permission).status().code();
  }
  double Refused(const char* reason) { return metrics.Value(Metric::kRefusals, {reason}); }

  TestCertificates folder;
  Metrics metrics{"", "", "", {"alice", "bob"}};
  std::unique_ptr<AccessControl> access;
  absl::Time now = absl::FromUnixSeconds(1'000'000);
};

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kUnknown = absl::StatusCode::kUnauthenticated;
constexpr auto kForbidden = absl::StatusCode::kPermissionDenied;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

TEST_F(AccessTest, WithoutAFileEverybodyMayDoEverything) {
  AccessControl open("", nullptr, &metrics);
  const auto lease = open.Admit({}, Permission::kAdmin, now);
  ASSERT_TRUE(lease.ok());
  EXPECT_EQ((*lease)->tenant(), "");
  EXPECT_EQ((*lease)->CacheSalt("mine"), "mine");
  EXPECT_TRUE((*lease)->AcquireMore(1000, now).ok());
}

TEST_F(AccessTest, OneKnownTokenIsNeeded) {
  Use(Line("a", "alice") + Line("b", "bob admin"));
  EXPECT_EQ(access->Admit({}, Permission::kAny, now).status().code(), kUnknown);
  EXPECT_EQ(Refused("no_token"), 1);
  int bad = 0;
  for (const std::vector<absl::string_view>& headers :
       std::vector<std::vector<absl::string_view>>{{"a"},
                                                   {"Bearer"},
                                                   {"Bearer "},
                                                   {"Bearer c"},
                                                   {"Basic a"},
                                                   {"Bearera"},
                                                   {"Bearer a b"},
                                                   {""},
                                                   {"Bearer a", "Bearer a"},
                                                   {"Bearer c", "Bearer a"}}) {
    EXPECT_EQ(access->Admit(headers, Permission::kAny, now).status().code(), kUnknown)
        << headers[0];
    EXPECT_EQ(Refused("bad_token"), ++bad);
  }
  for (const absl::string_view header : {"Bearer a", "bearer a", "BEARER  a "}) {
    EXPECT_TRUE(access->Admit({header}, Permission::kAny, now).ok()) << header;
  }
}

TEST_F(AccessTest, AdminIsARightOfItsOwn) {
  Use(Line("a", "alice") + Line("b", "bob admin"));
  EXPECT_EQ(Code("a", Permission::kAdmin), kForbidden);
  EXPECT_EQ(Refused("not_admin"), 1);
  EXPECT_EQ(Code("b", Permission::kAdmin), kOk);
  EXPECT_EQ(Code("b", Permission::kInference), kOk);
}

TEST_F(AccessTest, PlacesComeBackWhenCallsEnd) {
  Use(Line("a", "alice concurrent=2") + Line("a2", "alice concurrent=2") + Line("b", "bob"));
  auto first = Ask("a"), second = Ask("a2");  // one tenant, whichever token
  ASSERT_TRUE(first.ok() && second.ok());
  const absl::Status full = Ask("a").status();
  EXPECT_EQ(full.code(), kExhausted);
  EXPECT_EQ(RetryDelay(full), absl::Seconds(1));
  EXPECT_EQ(ReasonOfError(full), reason::kTooManyAtOnce);
  EXPECT_EQ(Refused("concurrent"), 1);
  EXPECT_EQ(Code("b"), kOk);
  EXPECT_EQ(Code("a", Permission::kAny), kOk);  // looking is not work
  *first = nullptr;
  EXPECT_EQ(Code("a"), kOk);
}

TEST_F(AccessTest, FurtherAnswersOfACallNeedPlacesToo) {
  Use(Line("a", "alice concurrent=3"));
  auto lease = Ask("a");
  ASSERT_TRUE(lease.ok());
  EXPECT_EQ((*lease)->AcquireMore(3, now).code(), kForbidden);  // four would never fit
  EXPECT_TRUE((*lease)->AcquireMore(2, now).ok());
  EXPECT_EQ(Code("a"), kExhausted);
  *lease = nullptr;
  lease = Ask("a");
  ASSERT_TRUE(lease.ok());
  auto other = Ask("a");
  EXPECT_EQ((*lease)->AcquireMore(2, now).code(), kExhausted);  // three would, later
}

TEST_F(AccessTest, TheRateIsAMinutesWorthAtOnceThenAnEvenPace) {
  Use(Line("a", "alice requests_per_minute=3"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Code("a"), kOk) << i;
  const absl::Status limited = Ask("a").status();
  EXPECT_EQ(limited.code(), kExhausted);
  EXPECT_EQ(ReasonOfError(limited), reason::kRateLimited);
  EXPECT_EQ(RetryDelay(limited), absl::Seconds(20));
  now += absl::Seconds(19);
  EXPECT_EQ(Code("a"), kExhausted);  // refusals cost nothing
  now += absl::Seconds(1);
  EXPECT_EQ(Code("a"), kOk);
  EXPECT_EQ(Code("a"), kExhausted);
  now += absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Code("a"), kOk) << i;  // not an hour's worth
  EXPECT_EQ(Code("a"), kExhausted);
}

TEST_F(AccessTest, AClockSetBackLocksNobodyOutForLong) {
  Use(Line("a", "alice requests_per_minute=2"));
  EXPECT_EQ(Code("a"), kOk);
  now -= absl::Hours(10);
  EXPECT_EQ(Code("a"), kExhausted);
  now += absl::Minutes(1);
  EXPECT_EQ(Code("a"), kOk);
}

TEST_F(AccessTest, AFullTenantIsNotChargedForWhatItMayNotStart) {
  Use(Line("a", "alice requests_per_minute=2 concurrent=1"));
  auto running = Ask("a");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Code("a"), kExhausted);
  *running = nullptr;
  EXPECT_EQ(Code("a"), kOk);
}

TEST_F(AccessTest, NoSaltIsAnotherTenants) {
  Use(Line("a", "alice") + Line("b", "bob") + Line("c", "al"));
  const auto alice = *Ask("a"), bob = *Ask("b"), al = *Ask("c");
  EXPECT_NE(alice->CacheSalt("s"), bob->CacheSalt("s"));
  EXPECT_NE(alice->CacheSalt(""), "");
  EXPECT_NE(al->CacheSalt("ice:s"), alice->CacheSalt("s"));
  EXPECT_NE(al->CacheSalt("alice:s"), alice->CacheSalt("s"));
  EXPECT_EQ(alice->CacheSalt("s"), (*Ask("a"))->CacheSalt("s"));
}

TEST_F(AccessTest, AChangedFileIsUsedAndABrokenOneIsNot) {
  Use(Line("a", "alice concurrent=1"));
  EXPECT_FALSE(*access->Refresh());
  auto running = Ask("a");
  folder.Write("tokens", Line("a2", "alice concurrent=1"));
  EXPECT_TRUE(*access->Refresh());
  EXPECT_EQ(Code("a"), kUnknown);
  EXPECT_EQ(Code("a2"), kExhausted);  // what runs is the tenant's, under whichever token
  folder.Write("tokens", "nonsense");
  EXPECT_FALSE(access->Refresh().ok());
  EXPECT_FALSE(*access->Refresh());  // told once
  *running = nullptr;
  EXPECT_EQ(Code("a2"), kOk);
}

TEST_F(AccessTest, CountsWorkByTenant) {
  Use(Line("a", "alice") + Line("n", "new_one"));
  EXPECT_EQ(Code("a"), kOk);
  EXPECT_EQ(Code("a", Permission::kAny), kOk);
  EXPECT_EQ(Code("n"), kOk);  // came after the start: no series of its own
  EXPECT_EQ(metrics.Value(Metric::kTenantRequests, {"alice"}), 1);
  EXPECT_EQ(metrics.Value(Metric::kTenantRequests, {"other"}), 1);
}

}  // namespace
}  // namespace tessera
