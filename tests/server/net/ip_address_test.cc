#include "server/net/ip_address.h"

#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(IpAddressTest, OnlyTheUsualFormsAreAddresses) {
  for (const char* text : {"",
                           "1",
                           "127.1",
                           "127.0.1",
                           "0177.0.0.1",
                           "0x7f.0.0.1",
                           "0x7f000001",
                           "2130706433",
                           "017700000001",
                           "127.0.0.1.",
                           "127.0.0.1 ",
                           " 127.0.0.1",
                           "127.0.0.01",
                           "256.0.0.1",
                           "1.2.3.4.5",
                           "localhost",
                           "[::1]",
                           "::1%lo",
                           "fe80::1%eth0",
                           ":::",
                           "12345::",
                           "::1/128",
                           "\xef\xbc\x91.2.3.4"}) {
    EXPECT_FALSE(ParseIpAddress(text).has_value()) << text;
  }
  EXPECT_FALSE(ParseIpAddress(absl::string_view("1.2.3.4\0x", 9)).has_value());
}

TEST(IpAddressTest, AMappedAddressIsTheAddress) {
  const auto plain = ParseIpAddress("192.0.2.1");
  ASSERT_TRUE(plain.has_value());
  EXPECT_TRUE(plain->is_v4());
  EXPECT_EQ(ToString(*plain), "192.0.2.1");
  EXPECT_EQ(ParseIpAddress("::ffff:192.0.2.1"), plain);
  EXPECT_EQ(ParseIpAddress("::ffff:c000:201"), plain);
  EXPECT_EQ(ParseIpAddress("0:0:0:0:0:FFFF:c000:0201"), plain);
  EXPECT_NE(ParseIpAddress("::192.0.2.1"), plain);
  EXPECT_FALSE(ParseIpAddress("2001:db8::1")->is_v4());
  EXPECT_EQ(ToString(*ParseIpAddress("2001:0DB8:0::1")), "2001:db8::1");
}

struct Row {
  const char* address;
  AddressScope scope;
};
constexpr AddressScope kPublic = AddressScope::kPublic, kPrivate = AddressScope::kPrivate,
                       kNever = AddressScope::kNever;

class AddressScopeTest : public testing::TestWithParam<Row> {};

TEST_P(AddressScopeTest, IsJudged) {
  const auto address = ParseIpAddress(GetParam().address);
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(ScopeOf(*address), GetParam().scope) << GetParam().address;
}

// Both sides of each border.
INSTANTIATE_TEST_SUITE_P(
    V4, AddressScopeTest,
    testing::Values(
        Row{"0.0.0.0", kNever}, Row{"0.255.255.255", kNever}, Row{"1.0.0.0", kPublic},
        Row{"9.255.255.255", kPublic}, Row{"10.0.0.0", kPrivate}, Row{"10.255.255.255", kPrivate},
        Row{"11.0.0.0", kPublic}, Row{"100.63.255.255", kPublic}, Row{"100.64.0.0", kPrivate},
        Row{"100.100.100.199", kPrivate}, Row{"100.100.100.200", kNever},
        Row{"100.127.255.255", kPrivate}, Row{"100.128.0.0", kPublic},
        Row{"126.255.255.255", kPublic}, Row{"127.0.0.1", kPrivate},
        Row{"127.255.255.255", kPrivate}, Row{"128.0.0.0", kPublic}, Row{"168.63.129.15", kPublic},
        Row{"168.63.129.16", kNever}, Row{"169.253.255.255", kPublic}, Row{"169.254.0.0", kNever},
        Row{"169.254.169.254", kNever}, Row{"169.254.255.255", kNever}, Row{"169.255.0.0", kPublic},
        Row{"172.15.255.255", kPublic}, Row{"172.16.0.0", kPrivate},
        Row{"172.31.255.255", kPrivate}, Row{"172.32.0.0", kPublic}, Row{"192.0.0.192", kNever},
        Row{"192.0.1.0", kPublic}, Row{"192.0.2.1", kNever}, Row{"192.88.99.1", kNever},
        Row{"192.167.255.255", kPublic}, Row{"192.168.0.0", kPrivate},
        Row{"192.168.255.255", kPrivate}, Row{"192.169.0.0", kPublic},
        Row{"198.17.255.255", kPublic}, Row{"198.18.0.0", kNever}, Row{"198.19.255.255", kNever},
        Row{"198.20.0.0", kPublic}, Row{"198.51.100.1", kNever}, Row{"203.0.113.1", kNever},
        Row{"223.255.255.255", kPublic}, Row{"224.0.0.1", kNever}, Row{"239.255.255.255", kNever},
        Row{"240.0.0.1", kNever}, Row{"255.255.255.255", kNever}));

INSTANTIATE_TEST_SUITE_P(
    V6, AddressScopeTest,
    testing::Values(
        Row{"::", kNever}, Row{"::1", kPrivate}, Row{"::2", kNever},
        // An IPv4 address inside: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
        Row{"::ffff:127.0.0.1", kPrivate}, Row{"::ffff:169.254.169.254", kNever},
        Row{"::ffff:8.8.8.8", kPublic}, Row{"::127.0.0.1", kNever}, Row{"::8.8.8.8", kNever},
        Row{"::ffff:0:127.0.0.1", kNever}, Row{"64:ff9b::127.0.0.1", kPrivate},
        Row{"64:ff9b::169.254.169.254", kNever}, Row{"64:ff9b::8.8.8.8", kPublic},
        Row{"64:ff9b:1::8.8.8.8", kNever}, Row{"2002:7f00:1::", kNever},
        Row{"2002:808:808::1", kNever}, Row{"2001::1", kNever}, Row{"fe80::5efe:127.0.0.1", kNever},
        // Metadata services inside unique-local addresses.
        Row{"fd00:ec2::254", kNever}, Row{"fd00:ec2::253", kPrivate}, Row{"fd20:ce::254", kNever},
        Row{"fbff:ffff::", kNever}, Row{"fc00::1", kPrivate}, Row{"fdff:ffff::", kPrivate},
        Row{"fe00::1", kNever}, Row{"fe80::1", kNever}, Row{"fec0::1", kNever},
        Row{"ff02::1", kNever}, Row{"100::1", kNever}, Row{"1fff:ffff::", kNever},
        Row{"2000::1", kPublic}, Row{"2001:1ff:ffff::", kNever}, Row{"2001:200::", kPublic},
        Row{"2001:db8::1", kNever}, Row{"2001:db9::1", kPublic}, Row{"2606:4700::1111", kPublic},
        Row{"3fff::1", kNever}, Row{"3fff:1000::", kPublic}, Row{"4000::1", kNever},
        Row{"5f00::1", kNever}));

}  // namespace
}  // namespace tessera
