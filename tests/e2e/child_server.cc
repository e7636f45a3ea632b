#include "tests/e2e/child_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

std::vector<std::string> WithDefaults(std::vector<std::string> flags) {
  flags.insert(flags.begin(), {"--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0",
                               "--metrics_listen=127.0.0.1:0", "--http_listen=127.0.0.1:0",
                               "--kv_cache_bytes=64MiB"});
  return flags;
}

}  // namespace

ChildServer::ChildServer(std::vector<std::string> flags, std::vector<std::string> program,
                         const std::string& until)
    : process_(std::move(program), WithDefaults(std::move(flags))) {
  const absl::Time deadline = SteadyNow() + absl::Seconds(60);
  while (!FindAddresses(until)) {
    if (SteadyNow() > deadline || process_.ended()) {
      ADD_FAILURE() << "tesserad does not serve: " << log();
      return;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  channel_ = grpc::CreateChannel(listen_, grpc::InsecureChannelCredentials());
  admin_channel_ = grpc::CreateChannel(admin_, grpc::InsecureChannelCredentials());
  inference_ = v1::Inference::NewStub(channel_);
  control_ = v1::Control::NewStub(admin_channel_);
}

bool ChildServer::FindAddresses(const std::string& until) {
  const std::vector<std::string> lines = absl::StrSplit(log(), '\n', absl::SkipEmpty());
  nlohmann::json listening;
  for (const std::string& line : lines) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    if (json["msg"] == "listening") listening = json;
    if (json["msg"] == until) {
      listen_ = listening["listen"];
      admin_ = listening["admin_listen"];
      metrics_ = listening["metrics_listen"];
      http_ = listening["http_listen"];
      return true;
    }
  }
  return false;
}

std::string ChildServer::HttpGet(const std::string& path) const {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  int port = 0;
  TESSERA_CHECK(absl::SimpleAtoi(metrics_.substr(metrics_.rfind(':') + 1), &port));
  name.sin_port = htons(static_cast<uint16_t>(port));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string text;
  if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0) {
    const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
    TESSERA_CHECK(write(fd, request.data(), request.size()) ==
                  static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, n);
  }
  close(fd);
  return text;
}

v1::GetLoadResponse ChildServer::Load() {
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  const grpc::Status status = control_->GetLoad(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

v1::GetCacheStatsResponse ChildServer::CacheStats() {
  grpc::ClientContext context;
  v1::GetCacheStatsResponse response;
  const grpc::Status status = control_->GetCacheStats(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

RunResult RunTesserad(const std::vector<std::string>& flags) {
  return RunProgram({"tesserad"}, flags);
}

v1::GenerateRequest EvalRequest(const nlohmann::json& question) {
  v1::GenerateRequest request;
  request.set_apply_template(false);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(8);
  const std::string prompt = question["prompt"];
  size_t image = 0;
  for (const auto text : absl::StrSplit(prompt, "<image>")) {
    if (image > 0) {
      request.add_content()->mutable_image()->set_data(
          ReadTestFile(absl::StrCat("tests/eval/", std::string(question["images"][image - 1]))));
    }
    request.add_content()->set_text(std::string(text));
    ++image;
  }
  return request;
}

std::vector<nlohmann::json> EvalLines(const std::string& file) {
  std::vector<nlohmann::json> lines;
  for (const auto line :
       absl::StrSplit(ReadTestFile("tests/eval/" + file), '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(std::string(line)));
  }
  return lines;
}

}  // namespace tessera
