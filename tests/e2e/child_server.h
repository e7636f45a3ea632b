// Runs tesserad as a child process with flags, and finds its addresses in its log. Threads: one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "grpcpp/channel.h"
#include "nlohmann/json.hpp"
#include "tessera/v1/control.grpc.pb.h"
#include "tessera/v1/inference.grpc.pb.h"
#include "tests/e2e/child_process.h"

namespace tessera {

class ChildServer {
 public:
  // Adds a log file and ports chosen by the system to `flags`, and waits until the server serves or
  // ends. `program` is another binary of the build and its first arguments. `until` is another log
  // message to wait for.
  explicit ChildServer(std::vector<std::string> flags = {},
                       std::vector<std::string> program = {"tesserad"},
                       const std::string& until = "serving");

  bool serving() const { return !listen_.empty(); }
  const std::string& listen() const { return listen_; }
  const std::string& admin() const { return admin_; }
  const std::string& http() const { return http_; }
  const std::string& metrics() const { return metrics_; }
  std::string log() const { return process_.output(); }

  pid_t pid() const { return process_.pid(); }
  void Signal(int number) { process_.Signal(number); }
  int WaitForExit() { return process_.WaitForExit(); }
  std::string HttpGet(const std::string& path) const;  // from the metrics listener

  v1::Inference::Stub& inference() { return *inference_; }
  v1::Control::Stub& control() { return *control_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  v1::GetLoadResponse Load();
  v1::GetCacheStatsResponse CacheStats();

 private:
  bool FindAddresses(const std::string& until);  // reads the log; true once it says `until`

  ChildProcess process_;
  std::string listen_, admin_, metrics_, http_;
  std::shared_ptr<grpc::Channel> channel_, admin_channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Control::Stub> control_;
};

RunResult RunTesserad(const std::vector<std::string>& flags);

// Returns a line of tests/eval/questions.jsonl as a request, with the prompt split at its images.
v1::GenerateRequest EvalRequest(const nlohmann::json& question);
std::vector<nlohmann::json> EvalLines(const std::string& file);

}  // namespace tessera
