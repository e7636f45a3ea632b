#include "tests/server/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tessera {

HttpClient::HttpClient(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  EXPECT_EQ(inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr), 1) << address;
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit = {10, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0) << address;
}

HttpClient::~HttpClient() { close(fd_); }

void HttpClient::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the server may refuse before it has read everything
    sent += static_cast<size_t>(n);
  }
}

bool HttpClient::Fill() {
  char bytes[4096];
  const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
  if (n > 0) buffer_.append(bytes, static_cast<size_t>(n));
  return n > 0;
}

std::string HttpClient::Line() {
  size_t end;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (!Fill()) return "";
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

std::string HttpClient::Bytes(size_t n) {
  while (buffer_.size() < n && Fill()) {
  }
  std::string bytes = buffer_.substr(0, n);
  buffer_.erase(0, bytes.size());
  return bytes;
}

std::string HttpClient::Chunk() {
  const size_t size = std::strtoul(Line().c_str(), nullptr, 16);
  std::string chunk = Bytes(size);
  Line();
  return chunk;
}

HttpReply HttpClient::ReadHead() {
  HttpReply reply;
  const std::string first = Line();
  if (first.size() < 12 || !absl::SimpleAtoi(first.substr(9, 3), &reply.status)) return {};
  for (std::string line = Line(); !line.empty(); line = Line()) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) return {};
    reply.headers[absl::AsciiStrToLower(line.substr(0, colon))] = line.substr(colon + 2);
  }
  return reply;
}

HttpReply HttpClient::Read() {
  HttpReply reply = ReadHead();
  if (reply.headers.contains("content-length")) {
    size_t length = 0;
    if (!absl::SimpleAtoi(reply.headers.at("content-length"), &length)) return {};
    reply.body = Bytes(length);
    if (reply.body.size() < length) reply.status = 0;
  } else if (reply.headers.contains("transfer-encoding")) {
    for (std::string chunk = Chunk(); !chunk.empty(); chunk = Chunk()) reply.body += chunk;
  } else {
    while (Fill()) {
    }
    reply.body = std::exchange(buffer_, "");
  }
  return reply;
}

std::string HttpClient::ReadEvent() {
  size_t end;
  while ((end = events_.find("\n\n")) == std::string::npos) {
    const std::string chunk = Chunk();
    if (chunk.empty()) return "";
    events_ += chunk;
  }
  const std::string event = events_.substr(0, end);
  events_.erase(0, end + 2);
  EXPECT_EQ(event.substr(0, 6), "data: ");
  return event.substr(6);
}

bool HttpClient::AtEnd() {
  while (Fill()) {
  }
  return true;
}

HttpReply HttpClient::Get(const std::string& path) {
  Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n\r\n"));
  return Read();
}

HttpReply HttpClient::Post(const std::string& path, const std::string& body,
                           const std::vector<std::string>& headers) {
  std::string head = absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: test\r\n");
  for (const std::string& header : headers) absl::StrAppend(&head, header, "\r\n");
  Send(absl::StrCat(head, "Content-Length: ", body.size(), "\r\n\r\n", body));
  return Read();
}

}  // namespace tessera
