#include "client/load/metrics_page.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/base.h"

namespace tessera::client {
namespace {

constexpr size_t kMaxPageBytes = size_t{64} << 20;

struct Descriptor {
  explicit Descriptor(int number) : number(number) {}
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

absl::Status Unavailable(absl::string_view address, absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("metrics of ", address, ": ", what));
}

// Returns the whole answer with its head. Plain sockets, because Asio's blocking calls have no
// timeouts.
absl::StatusOr<std::string> Get(absl::string_view address, const addrinfo& target,
                                absl::Duration timeout) {
  const Descriptor peer(socket(target.ai_family, target.ai_socktype | SOCK_CLOEXEC, 0));
  if (peer.number < 0) return Unavailable(address, std::strerror(errno));
  const timeval limit = absl::ToTimeval(timeout);
  setsockopt(peer.number, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(peer.number, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(peer.number, target.ai_addr, target.ai_addrlen) != 0) {
    return Unavailable(address, std::strerror(errno));
  }
  // With HTTP/1.0 the peer sends the body without chunks and then closes.
  const std::string request = absl::StrCat("GET /metrics HTTP/1.0\r\nHost: ", address, "\r\n\r\n");
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t n = send(peer.number, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return Unavailable(address, std::strerror(errno));
    sent += static_cast<size_t>(n);
  }
  std::string answer;
  char buffer[1 << 14];
  ssize_t n = 0;
  while ((n = recv(peer.number, buffer, sizeof(buffer), 0)) > 0) {
    answer.append(buffer, static_cast<size_t>(n));
    if (answer.size() > kMaxPageBytes)
      return absl::InternalError("the metrics page is larger than 64 MiB");
  }
  if (n < 0) return Unavailable(address, std::strerror(errno));
  return answer;
}

}  // namespace

absl::StatusOr<MetricsPage> MetricsPage::Parse(absl::string_view text) {
  MetricsPage page;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    // Label values may contain spaces, and a time stamp may follow the value.
    const size_t labels = line.rfind('}');
    const size_t name_end = labels == absl::string_view::npos ? line.find(' ') : labels + 1;
    double value = 0;
    if (name_end == absl::string_view::npos || name_end == 0) {
      return absl::InvalidArgumentError(absl::StrCat("no metric: ", line));
    }
    const std::vector<absl::string_view> rest =
        absl::StrSplit(line.substr(name_end), ' ', absl::SkipEmpty());
    if (rest.empty() || rest.size() > 2 || !absl::SimpleAtod(rest[0], &value)) {
      return absl::InvalidArgumentError(absl::StrCat("no metric: ", line));
    }
    page.values_[std::string(line.substr(0, name_end))] = value;
  }
  return page;
}

std::optional<double> MetricsPage::Get(absl::string_view series) const {
  const auto found = values_.find(series);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

std::optional<double> MetricsPage::Sum(absl::string_view name) const {
  std::optional<double> sum;
  for (const auto& [series, value] : values_) {
    if (series != name && !absl::StartsWith(series, absl::StrCat(name, "{"))) continue;
    sum = sum.value_or(0) + value;
  }
  return sum;
}

absl::StatusOr<MetricsPage> FetchMetrics(absl::string_view address, absl::Duration timeout) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is not HOST:PORT or [IPV6]:PORT"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(std::string(host).c_str(),
                                std::string(address.substr(colon + 1)).c_str(), &hints, &found);
  if (error != 0) return Unavailable(address, gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> targets(found, freeaddrinfo);
  absl::StatusOr<std::string> answer = Unavailable(address, "no address");
  for (const addrinfo* target = found; target != nullptr; target = target->ai_next) {
    answer = Get(address, *target, timeout);
    if (answer.ok()) break;
  }
  RETURN_IF_ERROR(answer.status());
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(*answer, absl::MaxSplits("\r\n\r\n", 1));
  const absl::string_view status_line = parts.first.substr(0, parts.first.find('\r'));
  if (!absl::StartsWith(status_line, "HTTP/1.") || !absl::StrContains(status_line, " 200 ")) {
    return absl::InternalError(
        absl::StrCat("metrics of ", address, ": expected status 200, got ", status_line));
  }
  auto page = MetricsPage::Parse(parts.second);
  if (!page.ok()) {
    return absl::InternalError(absl::StrCat("metrics of ", address, ": ", page.status().message()));
  }
  return page;
}

}  // namespace tessera::client
