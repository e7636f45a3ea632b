// tesserad as users run it: a child process with flags, found by its own log.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "grpcpp/channel.h"
#include "nlohmann/json.hpp"
#include "tessera/v1/control.grpc.pb.h"
#include "tessera/v1/inference.grpc.pb.h"

namespace tessera {

class ChildServer {
 public:
  // Adds ports chosen by the system and a log file to `flags`, and waits until it serves or ends.
  explicit ChildServer(std::vector<std::string> flags = {});
  ~ChildServer();  // SIGKILL if it still runs

  bool serving() const { return !listen_.empty(); }
  const std::string& listen() const { return listen_; }
  const std::string& admin() const { return admin_; }
  const std::string& http() const { return http_; }
  const std::string& metrics() const { return metrics_; }
  std::string log() const;

  void Signal(int number);
  // The exit status, or -1 if it has not ended after 20 s.
  int WaitForExit();
  std::string HttpGet(const std::string& path) const;  // from the metrics listener

  v1::Inference::Stub& inference() { return *inference_; }
  v1::Control::Stub& control() { return *control_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  v1::GetLoadResponse Load();
  v1::GetCacheStatsResponse CacheStats();

 private:
  bool FindAddresses();  // in the log; true once it serves

  pid_t pid_ = -1;
  std::string log_path_, listen_, admin_, metrics_, http_;
  std::shared_ptr<grpc::Channel> channel_, admin_channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Control::Stub> control_;
};

// What a command prints and how it ends.
struct RunResult {
  int status = -1;
  std::string output;
};
RunResult RunTesserad(const std::vector<std::string>& flags);

// A line of tests/eval/questions.jsonl as a request, the prompt split at its images.
v1::GenerateRequest EvalRequest(const nlohmann::json& question);
std::vector<nlohmann::json> EvalLines(const std::string& file);

}  // namespace tessera
