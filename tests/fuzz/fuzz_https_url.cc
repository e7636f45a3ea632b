// URLs of pictures: any text is refused or gives a host, a port and a target that can stand in a
// request as they are, and whose own spelling reads as the same. References too.
#include <cstddef>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "server/net/https_url.h"

namespace {

void Check(const tessera::HttpsUrl& url) {
  using namespace tessera;
  TESSERA_CHECK(!url.host.empty() && url.host.size() <= 253 && url.target[0] == '/');
  TESSERA_CHECK(url.port >= 1 && url.port <= 65535);
  TESSERA_CHECK(url.literal == ParseIpAddress(url.host));
  for (const char c : url.host) {
    TESSERA_CHECK(absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '-' ||
                  c == '_' || (c == ':' && url.literal.has_value()));
  }
  for (const char c : url.target) TESSERA_CHECK(absl::ascii_isgraph(c) && c != '\\' && c != '#');
  const auto again = ParseHttpsUrl(absl::StrCat("https://", url.HostHeader(), url.target));
  // A URL of the maximum length has no room for the path that the parser added.
  if (!again.ok() && url.target.size() > 8000) return;
  TESSERA_CHECK(again.ok() && again->host == url.host && again->port == url.port &&
                again->target == url.target);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto url = ParseHttpsUrl(text); url.ok()) Check(*url);
  const HttpsUrl base = *ParseHttpsUrl("https://a.example.com:8443/dir/x?q");
  if (const auto url = ResolveReference(base, text); url.ok()) Check(*url);
  // Whatever the list has, a URL that it allows is one of its names' or addresses.
  if (const auto rules = UrlRules::Make({std::string(text)}, false); rules.ok()) {
    TESSERA_CHECK(!rules->Check(*ParseHttpsUrl("https://a.b.c.d.example.invalid/")).ok() ||
                  absl::AsciiStrToLower(text).find("invalid") != std::string::npos);
  }
  return 0;
}
