#include "tests/server/server_testing.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "base/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/api/error_details.h"
#include "server/load_model.h"
#include "tests/support/paths.h"

namespace tessera {

ErrorView View(const grpc::Status& status) {
  ErrorView view;
  view.code = status.error_code();
  view.message = status.error_message();
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return view;
  for (const auto& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::QuotaFailure quota;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info)) {
      view.reason = info.reason();
      view.domain = info.domain();
      if (info.metadata().contains("request_id")) {
        view.request_id = info.metadata().at("request_id");
      }
    } else if (any.UnpackTo(&bad) && bad.field_violations_size() == 1) {
      view.field = bad.field_violations(0).field();
      view.description = bad.field_violations(0).description();
    } else if (any.UnpackTo(&quota) && quota.violations_size() == 1) {
      view.quota = quota.violations(0).subject();
    } else if (any.UnpackTo(&retry)) {
      view.retry = absl::Seconds(retry.retry_delay().seconds()) +
                   absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return view;
}

std::string ReasonOf(const absl::Status& status) { return View(ToGrpcStatus(status)).reason; }

void MemoryLogger::Write(LogLevel, absl::string_view message,
                         std::initializer_list<LogField> fields) {
  const std::string body = FormatLogBody(LogFormat::kJson, message, fields);
  MutexLock lock(mutex_);
  absl::StrAppend(&text_, body, "\n");
}

std::string MemoryLogger::text() const {
  MutexLock lock(mutex_);
  return text_;
}

absl::Status FakeEngine::Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                                int* queue_position) {
  if (!submit_status.ok()) return submit_status;
  MutexLock lock(mutex_);
  *queue_position = static_cast<int>(submitted_.size());
  submitted_.push_back({std::move(request), std::move(output_queue)});
  return absl::OkStatus();
}

EngineLoad FakeEngine::Load() const {
  EngineLoad load;
  load.running = 3;
  load.waiting = 2;
  load.kv_bytes_total = 1000;
  load.kv_bytes_used = 250;
  load.kv_bytes_reclaimable = 100;
  load.kv_bytes_stranded = 50;
  load.pages_by_format[0] = 7;
  return load;
}

FakeEngine::Submitted FakeEngine::Wait(size_t n) const {
  EXPECT_TRUE(Eventually([&] { return count() > n; })) << "request " << n << " never came";
  MutexLock lock(mutex_);
  return submitted_.at(n);
}

size_t FakeEngine::count() const {
  MutexLock lock(mutex_);
  return submitted_.size();
}

Event TextEvent(const std::string& text, std::vector<int32_t> ids) {
  Event event;
  event.text = text;
  event.ids = std::move(ids);
  return event;
}

Event LastEvent(absl::Status status) {
  Event event;
  event.done = true;
  event.status = std::move(status);
  event.reason = event.status.ok() ? FinishReason::kStop : FinishReason::kNone;
  return event;
}

TestServer::TestServer(const std::function<void(ServerConfig*)>& change) {
  ServerConfig config;
  config.model = SourcePath("models/demo");
  config.model_name = "demo";
  config.listen = config.admin_listen = "127.0.0.1:0";
  config.metrics_listen = config.http_listen = "off";
  if (change != nullptr) change(&config);
  const absl::Status valid = Validate(config);
  EXPECT_TRUE(valid.ok()) << valid;
  const auto load = [this](const ServerConfig& c, Observer*, Runtime* runtime) {
    auto model = LoadModelConfig(c.model);
    auto tokenizer = Tokenizer::Load(c.model);
    if (!model.ok()) return model.status();
    if (!tokenizer.ok()) return tokenizer.status();
    runtime->model = *std::move(model);
    runtime->model.name = c.model_name;
    runtime->tokenizer = *std::move(tokenizer);
    runtime->context_tokens =
        c.context_tokens > 0 ? c.context_tokens : runtime->model.text.max_positions;
    runtime->parameters = 42;
    runtime->prompts = std::make_unique<PromptBuilder>(&runtime->model, runtime->tokenizer.get(),
                                                       MakePromptLimits(c));
    auto engine = std::make_unique<FakeEngine>();
    engine_ = engine.get();
    runtime->engine = std::move(engine);
    return absl::OkStatus();
  };
  auto daemon = Daemon::Start(config, &log_, load, "fake (1 thread)");
  TESSERA_CHECK(daemon.ok());
  daemon_ = *std::move(daemon);
  channel_ = grpc::CreateChannel(daemon_->listen_address(), grpc::InsecureChannelCredentials());
  admin_channel_ =
      grpc::CreateChannel(daemon_->admin_address(), grpc::InsecureChannelCredentials());
  inference_ = v1::Inference::NewStub(channel_);
  tokenizer_ = v1::Tokenizer::NewStub(channel_);
  control_ = v1::Control::NewStub(admin_channel_);
}

TestServer::~TestServer() {
  // Without clients, shutting down need not wait for connections.
  inference_ = nullptr;
  tokenizer_ = nullptr;
  control_ = nullptr;
  channel_ = admin_channel_ = nullptr;
  daemon_ = nullptr;
}

Answer Generate(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
                grpc::ClientContext* context) {
  Answer answer;
  auto reader = stub.Generate(context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_accepted()) {
      EXPECT_TRUE(!answer.accepted.has_value() && answer.deltas.empty());
      answer.accepted = response.accepted();
    } else if (response.has_delta()) {
      EXPECT_TRUE(answer.accepted.has_value() && !answer.finished.has_value());
      answer.text += response.delta().text();
      answer.deltas.push_back(response.delta());
    } else if (response.has_finished()) {
      EXPECT_TRUE(answer.accepted.has_value() && !answer.finished.has_value());
      answer.finished = response.finished();
    } else {
      ADD_FAILURE() << "an empty event";
    }
  }
  answer.status = reader->Finish();
  EXPECT_EQ(answer.status.ok(), answer.finished.has_value());
  return answer;
}

Answer Generate(v1::Inference::Stub& stub, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30 * kSlowness));
  return Generate(stub, request, &context);
}

v1::GenerateRequest TextRequest(const std::string& text) {
  v1::GenerateRequest request;
  request.add_content()->set_text(text);
  return request;
}

std::string ReadTestFile(const std::string& relative_path) {
  return ReadAnyFile(SourcePath(relative_path));
}

std::string ReadAnyFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
const int kSlowness = 10;
#else
const int kSlowness = 1;
#endif

bool Eventually(const std::function<bool()>& done) {
  const absl::Time deadline = SteadyNow() + absl::Seconds(10 * kSlowness);
  while (!done()) {
    if (SteadyNow() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace tessera
