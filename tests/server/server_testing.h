// Shared by the server's tests: a daemon around a scripted engine, and a client's view of errors.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "server/daemon.h"
#include "server/request/engine_api.h"
#include "tessera/v1/control.grpc.pb.h"
#include "tessera/v1/inference.grpc.pb.h"
#include "tessera/v1/tokenizer.grpc.pb.h"

namespace tessera {

// A status as a client reads it from the trailers.
struct ErrorView {
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;
  std::string reason, domain, request_id;  // ErrorInfo
  std::string field, description;          // BadRequest
  std::string quota;                       // QuotaFailure's subject
  std::optional<absl::Duration> retry;     // RetryInfo
};
ErrorView View(const grpc::Status& status);
std::string ReasonOf(const absl::Status& status);  // "" for OK

// Keeps lines for tests to look at. Threads: safe.
class MemoryLogger final : public Logger {
 public:
  bool Enabled(LogLevel) const override { return true; }
  void Write(LogLevel level, absl::string_view message,
             std::initializer_list<LogField> fields) override;
  std::string text() const;

 private:
  mutable Mutex mutex_;
  std::string text_ TESSERA_GUARDED_BY(mutex_);
};

// An engine that does what the test says. Threads: safe.
class FakeEngine final : public EngineApi {
 public:
  struct Submitted {
    Request request;
    std::shared_ptr<OutputQueue> output_queue;
  };

  absl::Status Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                      int* queue_position) override;
  bool Abort(const std::string&) override { return false; }
  void FlushCaches() override { ++flushes; }
  void Stop() override { stopped = true; }
  EngineLoad Load() const override;
  absl::Duration HeartbeatAge() const override {
    return absl::Milliseconds(heartbeat_age_ms.load());
  }

  // The n-th request, as soon as it is there.
  Submitted Wait(size_t n = 0) const;
  size_t count() const;

  // Answers of the fake; set before use.
  absl::Status submit_status;
  std::atomic<int64_t> heartbeat_age_ms{0};
  std::atomic<int> flushes{0};
  std::atomic<bool> stopped{false};

 private:
  mutable Mutex mutex_;
  std::vector<Submitted> submitted_ TESSERA_GUARDED_BY(mutex_);
};

Event TextEvent(const std::string& text, std::vector<int32_t> ids);
Event LastEvent(absl::Status status = absl::OkStatus());

// A daemon on free ports, with the demo model's tokenizer and configuration and a FakeEngine.
class TestServer {
 public:
  explicit TestServer(const std::function<void(ServerConfig*)>& change = nullptr);
  ~TestServer();

  FakeEngine& engine() { return *engine_; }
  Daemon& daemon() { return *daemon_; }
  MemoryLogger& log() { return log_; }
  v1::Inference::Stub& inference() { return *inference_; }
  v1::Tokenizer::Stub& tokenizer() { return *tokenizer_; }
  v1::Control::Stub& control() { return *control_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  std::shared_ptr<grpc::Channel> admin_channel() { return admin_channel_; }

 private:
  MemoryLogger log_;
  FakeEngine* engine_ = nullptr;  // the runtime's
  std::unique_ptr<Daemon> daemon_;
  std::shared_ptr<grpc::Channel> channel_, admin_channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Tokenizer::Stub> tokenizer_;
  std::unique_ptr<v1::Control::Stub> control_;
};

// A call to Generate, read to its end.
struct Answer {
  std::optional<v1::Accepted> accepted;
  std::vector<v1::TokenDelta> deltas;
  std::optional<v1::Finished> finished;
  grpc::Status status;
  std::string text;
};
Answer Generate(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
                grpc::ClientContext* context);
Answer Generate(v1::Inference::Stub& stub, const v1::GenerateRequest& request);

v1::GenerateRequest TextRequest(const std::string& text);
std::string ReadTestFile(const std::string& relative_path);  // of the source tree
std::string ReadAnyFile(const std::string& path);
// Polls until `done`, at most 10 s times kSlowness.
bool Eventually(const std::function<bool()>& done);

// By how much longer tests wait: 10 where a sanitizer slows the code down, else 1.
extern const int kSlowness;

}  // namespace tessera
