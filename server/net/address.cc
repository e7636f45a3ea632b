#include "server/net/address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace tessera {
namespace {

absl::Status Taken(const Address& address) {
  return absl::AlreadyExistsError(
      absl::StrCat(address.text, ": another process listens on this address"));
}

absl::Status SystemError(const Address& address, int error) {
  if (error == EADDRINUSE) return Taken(address);
  return absl::FailedPreconditionError(
      absl::StrCat(address.text, ": cannot listen: ", std::strerror(error)));
}

absl::Status CheckUnixFree(const Address& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.unix_path.data(), address.unix_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return SystemError(address, errno);
  const bool connected = connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
  close(fd);
  return connected ? Taken(address) : absl::OkStatus();
}

}  // namespace

bool Address::loopback() const {
  // "127.example.com" is a name, and may be any machine's.
  return !unix_path.empty() || host == "localhost" || host == "::1" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == std::string::npos);
}

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  Address address;
  address.text = std::string(text);
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix:")) {
    absl::ConsumePrefix(&rest, "//");
    if (rest.empty() || rest.size() >= sizeof(sockaddr_un{}.sun_path)) {
      return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": a unix: path has 1 to ",
                                                     sizeof(sockaddr_un{}.sun_path) - 1, " bytes"));
    }
    address.unix_path = std::string(rest);
    return address;
  }
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(text.substr(colon + 1), &address.port) || address.port < 0 ||
      address.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not an address: want host:port or unix:path"));
  }
  absl::string_view host = text.substr(0, colon);
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  if (host.empty() || absl::StrContains(host, ":") != bracketed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is not an address: want host:port, with an IPv6 host in brackets"));
  }
  address.host = std::string(host);
  return address;
}

absl::Status CheckAddressFree(const Address& address) {
  if (!address.unix_path.empty()) return CheckUnixFree(address);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(address.text, ": cannot resolve the host: ", gai_strerror(error)));
  }
  absl::Status status;
  for (const addrinfo* a = found; a != nullptr && status.ok(); a = a->ai_next) {
    const int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0) continue;  // such as IPv6 on a host without it
    // gRPC sets this too: connections of a daemon that has just ended do not count.
    const int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0) {
      status = SystemError(address, errno);
    }
    close(fd);
  }
  freeaddrinfo(found);
  return status;
}

}  // namespace tessera
