#include "server/net/https_url.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/base.h"

namespace tessera {
namespace {

constexpr size_t kMaxUrlBytes = 8192;
constexpr size_t kMaxHostBytes = 253;
constexpr size_t kMaxLabelBytes = 63;
constexpr int kDefaultPort = 443;

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::Status CheckCharacters(absl::string_view text) {
  if (text.size() > kMaxUrlBytes) {
    return Wrong(absl::StrCat("a URL of more than ", kMaxUrlBytes, " bytes"));
  }
  for (const char c : text) {
    if (c <= ' ' || c > '~' || c == '\\') {
      return Wrong("want a URL of visible ASCII characters without backslashes");
    }
  }
  return absl::OkStatus();
}

// Returns true if the last label is a number: inet_aton would read such a name as an IPv4 address.
bool LooksNumeric(absl::string_view last_label) {
  return std::all_of(last_label.begin(), last_label.end(), absl::ascii_isdigit) ||
         absl::StartsWith(last_label, "0x");
}

absl::Status CheckName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxHostBytes) {
    return Wrong("want a host of 1 to 253 characters");
  }
  const std::vector<absl::string_view> labels = absl::StrSplit(name, '.');
  for (const absl::string_view label : labels) {
    const bool known = std::all_of(label.begin(), label.end(), [](char c) {
      return absl::ascii_isalnum(c) || c == '-' || c == '_';
    });
    if (label.empty() || label.size() > kMaxLabelBytes || !known) {
      return Wrong("want a host of letters, digits, '-' and '_' between dots");
    }
  }
  if (LooksNumeric(labels.back())) return Wrong("want an IPv4 address as four decimal numbers");
  return absl::OkStatus();
}

// Parses "host[:port]", as URLs and the operator's list have it.
absl::Status ParseAuthority(absl::string_view text, HttpsUrl* out) {
  absl::string_view host = text, port;
  if (absl::ConsumePrefix(&host, "[")) {
    const size_t end = host.find(']');
    if (end == absl::string_view::npos) return Wrong("want a ']' after the host's '['");
    port = host.substr(end + 1);
    host = host.substr(0, end);
    out->literal = ParseIpAddress(host);
    if (!out->literal.has_value() || !absl::StrContains(host, ':')) {
      return Wrong("want an IPv6 address between the host's brackets");
    }
  } else {
    const size_t colon = host.find(':');
    if (colon != absl::string_view::npos) {
      port = host.substr(colon);
      host = host.substr(0, colon);
    }
    absl::ConsumeSuffix(&host, ".");
    out->host = absl::AsciiStrToLower(host);
    out->literal = ParseIpAddress(out->host);
    if (!out->literal.has_value()) RETURN_IF_ERROR(CheckName(out->host));
  }
  // An address has one spelling.
  if (out->literal.has_value()) out->host = ToString(*out->literal);
  if (port.empty()) return absl::OkStatus();
  absl::ConsumePrefix(&port, ":");
  const bool digits = !port.empty() && port.size() <= 5 &&
                      std::all_of(port.begin(), port.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(port, &out->port) || out->port < 1 || out->port > 65535) {
    return Wrong("want a port of 1 to 65535 after the host's ':'");
  }
  return absl::OkStatus();
}

void SetTarget(absl::string_view path_and_query, HttpsUrl* url) {
  path_and_query = path_and_query.substr(0, path_and_query.find('#'));
  url->target = absl::StrCat(absl::StartsWith(path_and_query, "/") ? "" : "/", path_and_query);
}

}  // namespace

std::string HttpsUrl::HostHeader() const {
  const bool brackets = literal.has_value() && !literal->is_v4();
  return absl::StrCat(brackets ? "[" : "", host, brackets ? "]" : "",
                      port == kDefaultPort ? "" : absl::StrCat(":", port));
}

absl::StatusOr<HttpsUrl> ParseHttpsUrl(absl::string_view text) {
  constexpr absl::string_view kScheme = "https://";
  RETURN_IF_ERROR(CheckCharacters(text));
  if (!absl::StartsWithIgnoreCase(text, kScheme)) return Wrong("want https://...");
  text.remove_prefix(kScheme.size());
  const absl::string_view authority = text.substr(0, text.find_first_of("/?#"));
  if (absl::StrContains(authority, '@')) return Wrong("a URL with a user's name or password");
  HttpsUrl url;
  RETURN_IF_ERROR(ParseAuthority(authority, &url));
  SetTarget(text.substr(authority.size()), &url);
  return url;
}

absl::StatusOr<HttpsUrl> ResolveReference(const HttpsUrl& base, absl::string_view reference) {
  RETURN_IF_ERROR(CheckCharacters(reference));
  if (absl::StartsWith(reference, "//")) return ParseHttpsUrl(absl::StrCat("https:", reference));
  // A colon before the path ends a scheme.
  const absl::string_view head = reference.substr(0, reference.find_first_of("/?#"));
  if (absl::StrContains(head, ':')) return ParseHttpsUrl(reference);
  HttpsUrl url = base;
  const std::string path = base.target.substr(0, base.target.find('?'));
  if (absl::StartsWith(reference, "/")) {
    SetTarget(reference, &url);
  } else if (reference.empty() || reference[0] == '#') {
    return url;  // the page itself: the limit on redirects ends the loop
  } else if (reference[0] == '?') {
    SetTarget(absl::StrCat(path, reference), &url);
  } else {
    SetTarget(absl::StrCat(path.substr(0, path.rfind('/') + 1), reference), &url);
  }
  return url;
}

absl::StatusOr<UrlRules> UrlRules::Make(const std::vector<std::string>& hosts, bool allow_private) {
  UrlRules rules;
  rules.allow_private_ = allow_private;
  for (const std::string& text : hosts) {
    absl::string_view rest = text;
    Host host;
    host.below_it = absl::ConsumePrefix(&rest, "*.");
    HttpsUrl parsed;
    const absl::Status status = ParseAuthority(rest, &parsed);
    if (!status.ok() || (host.below_it && parsed.literal.has_value())) {
      return Wrong(absl::StrCat(
          "\"", text, "\": want host, *.host or an address, each with :port where it is not 443",
          status.ok() ? "" : absl::StrCat(" (", status.message(), ")")));
    }
    host.name = parsed.host;
    host.literal = parsed.literal.has_value();
    host.port = parsed.port;
    rules.hosts_.push_back(std::move(host));
  }
  return rules;
}

absl::Status UrlRules::Check(const HttpsUrl& url) const {
  for (const Host& host : hosts_) {
    if (url.port != host.port || url.literal.has_value() != host.literal) continue;
    if (host.below_it ? absl::EndsWith(url.host, absl::StrCat(".", host.name))
                      : url.host == host.name) {
      return absl::OkStatus();
    }
  }
  return Wrong("this server does not fetch from that host and port");
}

bool UrlRules::Allows(const IpAddress& address) const {
  const AddressScope scope = ScopeOf(address);
  return scope == AddressScope::kPublic || (scope == AddressScope::kPrivate && allow_private_);
}

}  // namespace tessera
