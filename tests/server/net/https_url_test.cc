#include "server/net/https_url.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

using testing::HasSubstr;

TEST(HttpsUrlTest, Reads) {
  struct {
    const char *text, *host;
    int port;
    const char *target, *host_header;
  } const kRows[] = {
      {"https://a.example.com/x.png", "a.example.com", 443, "/x.png", "a.example.com"},
      {"HTTPS://A.Example.COM", "a.example.com", 443, "/", "a.example.com"},
      {"https://a.example.com.:0443/", "a.example.com", 443, "/", "a.example.com"},
      {"https://a.example.com:8443?q=1", "a.example.com", 8443, "/?q=1", "a.example.com:8443"},
      {"https://a.example.com/p?u=https://b/@c#f", "a.example.com", 443, "/p?u=https://b/@c",
       "a.example.com"},
      {"https://a.example.com#@b.example.com/", "a.example.com", 443, "/", "a.example.com"},
      {"https://a.example.com/%2e%2e/%00", "a.example.com", 443, "/%2e%2e/%00", "a.example.com"},
      {"https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/",
       "xn--bcher-kva.example"},
      {"https://8.8.8.8/", "8.8.8.8", 443, "/", "8.8.8.8"},
      {"https://8.8.8.8./", "8.8.8.8", 443, "/", "8.8.8.8"},
      {"https://[2606:4700:0::1111]:8443/", "2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443"},
      {"https://[::ffff:127.0.0.1]/", "127.0.0.1", 443, "/", "127.0.0.1"},
  };
  for (const auto& row : kRows) {
    const auto url = ParseHttpsUrl(row.text);
    ASSERT_TRUE(url.ok()) << row.text << ": " << url.status();
    EXPECT_EQ(url->host, row.host) << row.text;
    EXPECT_EQ(url->port, row.port) << row.text;
    EXPECT_EQ(url->target, row.target) << row.text;
    EXPECT_EQ(url->HostHeader(), row.host_header) << row.text;
    EXPECT_EQ(url->literal, ParseIpAddress(row.host)) << row.text;
  }
}

// Text that two parsers could read differently is not a URL.
TEST(HttpsUrlTest, RefusesWhatIsNotPlain) {
  for (const char* text :
       {"", "https://", "https:///x", "https:/a.example.com", "https:a.example.com",
        "//a.example.com", "http://a.example.com/", "ftp://a.example.com/", "file:///etc/passwd",
        "unix:/run/x", "gopher://127.0.0.1:6379/_", "data:image/png;base64,AAAA",
        // Who is the host?
        "https://user@a.example.com/", "https://user:word@a.example.com/",
        "https://a.example.com@127.0.0.1/", "https://a.example.com:443@127.0.0.1/",
        "https://@a.example.com/", "https://a.example.com\\@127.0.0.1/",
        "https://127.0.0.1\\.a.example.com/", "https:\\\\a.example.com/",
        "https://a.example.com/\\x", "https://a.example.com;b.example.com/",
        "https://a.example.com,b.example.com/", "https://a.example.com&@b.example.com/",
        // Characters that readers drop or decode.
        "https://a.exa\tmple.com/", "https://a.example.com/\n", "https://a.example.com/\r\nX: y",
        " https://a.example.com/", "https://a.example.com/ ", "https://a.example.com%2f@b/",
        "https://%61.example.com/", "https://127%2e0%2e0%2e1/", "https://a.example.com%00.b/",
        "https://b\xc3\xbc"
        "cher.example/",
        "https://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/",
        "https://a\xe3\x80\x82"
        "b/",
        "https://a.example.com/\x7f",
        // Addresses in other forms.
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/",
        "https://017700000001/", "https://127.1/", "https://127.0.1/", "https://127.0.0.01/",
        "https://256.256.256.256/", "https://1.2.3.4.5/", "https://a.example.0x1/",
        "https://a.example.1/", "https://[127.0.0.1]/", "https://[::1/", "https://::1/",
        "https://[::1%25lo]/", "https://[v1.x]/", "https://[]/", "https://[::1]x/",
        // Names and ports that are none.
        "https://./", "https://../", "https://a..example.com/", "https://.example.com/",
        "https://a.example.com../", "https://a.example.com:/", "https://a.example.com:0/",
        "https://a.example.com:65536/", "https://a.example.com:99999999999/",
        "https://a.example.com:+443/", "https://a.example.com:-1/", "https://a.example.com:https/",
        "https://a.example.com:443:443/", "https://*.example.com/"}) {
    const auto url = ParseHttpsUrl(text);
    EXPECT_FALSE(url.ok()) << text << " is read as " << url->host;
    EXPECT_EQ(url.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(ParseHttpsUrl(absl::string_view("https://a.example.com\0/", 23)).ok());
  EXPECT_FALSE(ParseHttpsUrl("https://" + std::string(64, 'a') + ".com/").ok());
  EXPECT_TRUE(ParseHttpsUrl("https://" + std::string(63, 'a') + ".com/").ok());
  std::string name = "a";
  while (name.size() < 253) name += ".a";
  EXPECT_TRUE(ParseHttpsUrl("https://" + name).ok());
  EXPECT_FALSE(ParseHttpsUrl("https://a" + name).ok());
  EXPECT_FALSE(ParseHttpsUrl("https://a.example.com/" + std::string(8192, 'a')).ok());
}

TEST(HttpsUrlTest, ResolvesReferences) {
  const HttpsUrl base = *ParseHttpsUrl("https://a.example.com:8443/dir/x.png?q#f");
  struct {
    const char *reference, *host;
    int port;
    const char* target;
  } const kRows[] = {
      {"https://b.example.com/y", "b.example.com", 443, "/y"},
      {"//b.example.com/y", "b.example.com", 443, "/y"},
      {"/y?z", "a.example.com", 8443, "/y?z"},
      {"y", "a.example.com", 8443, "/dir/y"},
      {"y/a:b", "a.example.com", 8443, "/dir/y/a:b"},
      {"../y", "a.example.com", 8443, "/dir/../y"},
      {"?z", "a.example.com", 8443, "/dir/x.png?z"},
      {"#g", "a.example.com", 8443, "/dir/x.png?q"},
      {"", "a.example.com", 8443, "/dir/x.png?q"},
  };
  for (const auto& row : kRows) {
    const auto url = ResolveReference(base, row.reference);
    ASSERT_TRUE(url.ok()) << row.reference << ": " << url.status();
    EXPECT_EQ(url->host, row.host) << row.reference;
    EXPECT_EQ(url->port, row.port) << row.reference;
    EXPECT_EQ(url->target, row.target) << row.reference;
  }
  for (const char* text : {"http://a.example.com/", "file:/etc/passwd", "a:b", "x y", "/\\b",
                           "//user@b.example.com/", "//127.1/", "https:b.example.com"}) {
    EXPECT_FALSE(ResolveReference(base, text).ok()) << text;
  }
}

TEST(UrlRulesTest, TheListIsAllThereIs) {
  const auto rules = UrlRules::Make({"a.example.com", "*.cdn.Example.com.", "port.example.com:8443",
                                     "8.8.8.8", "[2606:4700::1111]:8443"},
                                    false);
  ASSERT_TRUE(rules.ok()) << rules.status();
  for (const char* text :
       {"https://a.example.com/", "https://A.EXAMPLE.COM./", "https://a.example.com:443/",
        "https://x.cdn.example.com/", "https://x.y.cdn.example.com/",
        "https://port.example.com:8443/", "https://8.8.8.8/", "https://[::ffff:8.8.8.8]/",
        "https://[2606:4700:0::1111]:8443/"}) {
    EXPECT_TRUE(rules->Check(*ParseHttpsUrl(text)).ok()) << text;
  }
  for (const char* text :
       {"https://example.com/", "https://b.example.com/", "https://xa.example.com/",
        "https://a.example.com.evil.com/", "https://a.example.com:8443/",
        "https://cdn.example.com/", "https://xcdn.example.com/", "https://port.example.com/",
        "https://8.8.4.4/", "https://[2606:4700::1111]/", "https://localhost/",
        "https://metadata.google.internal/", "https://169.254.169.254/"}) {
    const absl::Status status = rules->Check(*ParseHttpsUrl(text));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("does not fetch from that host")) << text;
  }
}

// "*.0.0.1" must not be a way to name addresses.
TEST(UrlRulesTest, EntriesThatCannotBeMeantAreRefused) {
  for (const char* text :
       {"", "*", "*.", "https://a.example.com", "a.example.com/x", "a.*.com", "*a.example.com",
        "user@a.example.com", "127.1", "0x7f000001", "*.0.0.1", "*.127.0.0.1", "*.[::1]", "[::1",
        "::1", "a.example.com:", "a b", "a.example.com:70000"}) {
    const auto rules = UrlRules::Make({"fine.example.com", text}, false);
    EXPECT_FALSE(rules.ok()) << text;
    EXPECT_THAT(std::string(rules.status().message()), HasSubstr("\"")) << text;
  }
  EXPECT_TRUE(UrlRules::Make({"localhost:8443", "*.internal"}, true).ok());
}

TEST(UrlRulesTest, AddressesOfAllFamiliesAreJudged) {
  const UrlRules open = *UrlRules::Make({"a.example.com"}, true);
  const UrlRules closed = *UrlRules::Make({"a.example.com"}, false);
  const auto at = [](const char* text) { return *ParseIpAddress(text); };
  for (const char* text : {"127.0.0.1", "10.1.2.3", "::1", "fc00::1", "::ffff:192.168.0.1",
                           "64:ff9b::10.0.0.1", "100.64.0.1"}) {
    EXPECT_FALSE(closed.Allows(at(text))) << text;
    EXPECT_TRUE(open.Allows(at(text))) << text;
  }
  for (const char* text : {"169.254.169.254", "0.0.0.0", "::", "fe80::1", "224.0.0.1",
                           "255.255.255.255", "fd00:ec2::254", "100.100.100.200", "::127.0.0.1",
                           "2002:7f00:1::", "64:ff9b::169.254.169.254"}) {
    EXPECT_FALSE(closed.Allows(at(text))) << text;
    EXPECT_FALSE(open.Allows(at(text))) << text;
  }
  for (const char* text : {"8.8.8.8", "2606:4700::1111"}) {
    EXPECT_TRUE(closed.Allows(at(text))) << text;
    EXPECT_TRUE(open.Allows(at(text))) << text;
  }
}

}  // namespace
}  // namespace tessera
