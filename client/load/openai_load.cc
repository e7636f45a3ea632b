#include "client/load/openai_load.h"

#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/mutex.h"
#include "boost/asio.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "client/cli/json_fields.h"

namespace tessera::client {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using nlohmann::ordered_json;

constexpr char kPath[] = "/v1/chat/completions";
constexpr size_t kShownErrorBytes = 300;

int64_t Count(const nlohmann::json& usage, const char* key) {
  const auto found = usage.find(key);
  return found != usage.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

}  // namespace

std::string ToOpenAiBody(const v1::GenerateRequest& request) {
  ordered_json content = ordered_json::array();
  for (const v1::ContentPart& part : request.content()) {
    if (part.has_text()) {
      content.push_back({{"type", "text"}, {"text", part.text()}});
      continue;
    }
    const std::string url =
        absl::StrCat("data:image/png;base64,", absl::Base64Escape(part.image().data()));
    content.push_back({{"type", "image_url"}, {"image_url", {{"url", url}}}});
  }
  ordered_json body = {{"messages", {{{"role", "user"}, {"content", std::move(content)}}}},
                       {"temperature", request.sampling().temperature()},
                       {"max_tokens", request.stopping().max_tokens()},
                       {"ignore_eos", request.stopping().ignore_eos()},
                       {"stream", true},
                       {"stream_options", {{"include_usage", true}}}};
  if (request.has_kv_policy()) body["kv_policy"] = request.kv_policy().text();
  if (request.has_cache()) body["cache_salt"] = request.cache().salt();
  return ToLine(body);
}

OpenAiAnswer ParseOpenAiStream(absl::string_view events) {
  OpenAiAnswer answer;
  bool done = false, counted = false;
  for (absl::string_view event : absl::StrSplit(events, "\n\n", absl::SkipEmpty())) {
    if (done || !absl::ConsumePrefix(&event, "data: ")) {
      answer.error = "the stream contains something that is not an event, or events after [DONE]";
      return answer;
    }
    if (event == "[DONE]") {
      done = true;
      continue;
    }
    const auto json = ParseObject(event);
    if (!json.ok() || json->contains("error")) {
      answer.error = std::string(event.substr(0, kShownErrorBytes));
      return answer;
    }
    const auto usage = json->find("usage");
    if (usage == json->end() || !usage->is_object()) continue;
    counted = true;
    answer.prompt_tokens = Count(*usage, "prompt_tokens");
    answer.output_tokens = Count(*usage, "completion_tokens");
  }
  if (!done || !counted) answer.error = "the stream ended without usage or without [DONE]";
  return answer;
}

class OpenAiLoad::Connection {
 public:
  Connection(std::string host, std::string token, asio::ip::tcp::resolver::results_type targets)
      : host_(std::move(host)), token_(std::move(token)), targets_(std::move(targets)) {}

  OpenAiAnswer Ask(const std::string& body) {
    http::request<http::string_body> request{http::verb::post, kPath, 11};
    request.set(http::field::host, host_);
    request.set(http::field::content_type, "application/json");
    if (!token_.empty()) request.set(http::field::authorization, "Bearer " + token_);
    request.body() = body;
    request.prepare_payload();
    http::response_parser<http::string_body> parser;
    parser.body_limit(std::numeric_limits<uint64_t>::max());
    error_code error = Connect();
    const auto sent = Clock::now();
    if (!error) http::write(socket_, request, error);
    if (!error) http::read_header(socket_, buffer_, parser, error);
    std::string& events = parser.get().body();
    Clock::time_point first;
    while (!error && !parser.is_done()) {
      http::read_some(socket_, buffer_, parser, error);
      if (first == Clock::time_point() && absl::StrContains(events, "\n\n")) first = Clock::now();
    }
    const auto done = Clock::now();
    if (error) {
      Close();
      OpenAiAnswer failed;
      failed.error = absl::StrCat(host_, ": ", error.message());
      return failed;
    }
    if (parser.get().result() != http::status::ok) {
      OpenAiAnswer failed;
      failed.error = absl::StrCat("HTTP status ", parser.get().result_int(), ": ",
                                  absl::string_view(events).substr(0, kShownErrorBytes));
      return failed;
    }
    OpenAiAnswer answer = ParseOpenAiStream(events);
    answer.sent = sent;
    answer.first = first;
    answer.done = done;
    return answer;
  }

  // Makes the current and all later requests fail. Threads: any.
  void Stop() {
    MutexLock lock(mutex_);
    stopped_ = true;
    if (descriptor_ >= 0) shutdown(descriptor_, SHUT_RDWR);
  }

 private:
  // Connects unless there is a connection that the peer has not closed.
  error_code Connect() {
    char byte;
    // No byte is due, because the last answer was read to its end. So EAGAIN means "still open".
    if (socket_.is_open() && recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
        (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return {};
    }
    Close();
    error_code error, ignored;
    asio::connect(socket_, targets_, error);
    if (error) return error;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    MutexLock lock(mutex_);
    if (stopped_) return asio::error::operation_aborted;
    descriptor_ = socket_.native_handle();
    return {};
  }

  void Close() {
    MutexLock lock(mutex_);
    error_code ignored;
    descriptor_ = -1;
    socket_.close(ignored);
    buffer_.clear();
  }

  const std::string host_, token_;
  const asio::ip::tcp::resolver::results_type targets_;
  // Used by the thread that calls Ask.
  asio::io_context context_;
  asio::ip::tcp::socket socket_{context_};
  boost::beast::flat_buffer buffer_;

  Mutex mutex_;
  int descriptor_ TESSERA_GUARDED_BY(mutex_) = -1;  // the open connection's, or -1
  bool stopped_ TESSERA_GUARDED_BY(mutex_) = false;
};

OpenAiLoad::OpenAiLoad() = default;
OpenAiLoad::~OpenAiLoad() = default;

absl::StatusOr<std::unique_ptr<OpenAiLoad>> OpenAiLoad::Create(absl::string_view address,
                                                               absl::string_view token,
                                                               int connections) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is not HOST:PORT or [IPV6]:PORT"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  asio::io_context context;
  asio::ip::tcp::resolver resolver(context);
  error_code error;
  const auto targets =
      resolver.resolve(std::string(host), std::string(address.substr(colon + 1)), error);
  if (error) return absl::UnavailableError(absl::StrCat(address, ": ", error.message()));
  std::unique_ptr<OpenAiLoad> load(new OpenAiLoad());
  for (int i = 0; i < connections; ++i) {
    load->connections_.push_back(
        std::make_unique<Connection>(std::string(address), std::string(token), targets));
  }
  return load;
}

std::vector<OpenAiAnswer> OpenAiLoad::Run(const std::vector<std::string>& bodies,
                                          Interrupt* interrupt) {
  std::vector<OpenAiAnswer> answers(bodies.size());
  Interrupt::Scope on_interrupt(interrupt, [this] {
    for (const auto& connection : connections_) connection->Stop();
  });
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads;
  for (const auto& connection : connections_) {
    threads.emplace_back([&answers, &bodies, &next, connection = connection.get()] {
      for (size_t i = next++; i < bodies.size(); i = next++) {
        answers[i] = connection->Ask(bodies[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return answers;
}

}  // namespace tessera::client
