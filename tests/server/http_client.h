// A plain HTTP/1.1 client for tests: one connection, blocking, with access to the raw bytes.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace tessera {

struct HttpReply {
  int status = 0;                              // 0: the connection ended before a whole answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

class HttpClient {
 public:
  explicit HttpClient(const std::string& address);  // host:port
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void Send(const std::string& bytes);
  HttpReply Read();  // a whole answer
  // The next server-sent event's data; "" at the stream's end. Read's header must be taken first.
  HttpReply ReadHead();
  std::string ReadEvent();
  bool AtEnd();  // waits for the server to close the connection (at most 10 s)

  HttpReply Get(const std::string& path);
  HttpReply Post(const std::string& path, const std::string& body,
                 const std::vector<std::string>& headers = {});

 private:
  bool Fill();  // reads more into buffer_; false at the end
  std::string Line();
  std::string Bytes(size_t n);
  std::string Chunk();  // "" is the last

  int fd_ = -1;
  std::string buffer_;
  std::string events_;
};

}  // namespace tessera
