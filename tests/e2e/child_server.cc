#include "tests/e2e/child_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "kernels/base.h"
#include "tests/server/server_testing.h"

extern char** environ;

namespace tessera {
namespace {

std::string TempPath(const char* what) {
  static std::atomic<int> count{0};
  return absl::StrCat(testing::TempDir(), "tesserad.", getpid(), ".", ++count, ".", what);
}

pid_t Spawn(const std::vector<std::string>& flags, const std::string& output_path) {
  std::vector<std::string> words = {std::string(TESSERA_BINARY_DIR) + "/tesserad"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, output_path.c_str(),
                                   O_CREAT | O_TRUNC | O_WRONLY, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  TESSERA_CHECK(error == 0);
  return pid;
}

int WaitFor(pid_t pid, absl::Duration limit) {
  const absl::Time deadline = SteadyNow() + limit;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (SteadyNow() > deadline) return -1;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

ChildServer::ChildServer(std::vector<std::string> flags) : log_path_(TempPath("log")) {
  flags.insert(flags.begin(), {"--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0",
                               "--metrics_listen=127.0.0.1:0", "--http_listen=127.0.0.1:0",
                               "--kv_cache_bytes=64MiB"});
  pid_ = Spawn(flags, log_path_);
  const absl::Time deadline = SteadyNow() + absl::Seconds(60);
  while (!FindAddresses()) {
    int status = 0;
    if (SteadyNow() > deadline || waitpid(pid_, &status, WNOHANG) != 0) {
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

ChildServer::~ChildServer() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  unlink(log_path_.c_str());
}

bool ChildServer::FindAddresses() {
  const std::vector<std::string> lines = absl::StrSplit(log(), '\n', absl::SkipEmpty());
  nlohmann::json listening;
  for (const std::string& line : lines) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    if (json["msg"] == "listening") listening = json;
    if (json["msg"] == "serving") {
      listen_ = listening["listen"];
      admin_ = listening["admin_listen"];
      metrics_ = listening["metrics_listen"];
      http_ = listening["http_listen"];
      return true;
    }
  }
  return false;
}

std::string ChildServer::log() const { return ReadAll(log_path_); }

void ChildServer::Signal(int number) { TESSERA_CHECK(kill(pid_, number) == 0); }

int ChildServer::WaitForExit() {
  const int status = WaitFor(pid_, absl::Seconds(20));
  if (status >= 0) pid_ = -1;
  return status;
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
  const std::string output = TempPath("output");
  const pid_t pid = Spawn(flags, output);
  RunResult result;
  result.status = WaitFor(pid, absl::Seconds(20));
  if (result.status < 0) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  result.output = ReadAll(output);
  unlink(output.c_str());
  return result;
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
