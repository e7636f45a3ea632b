#include "tests/client/fake_server.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/rpc/connection.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/server_builder.h"

namespace tessera::client {

Reply Answer(const std::string& text) {
  Reply reply;
  for (char c : text) reply.deltas.push_back(std::string(1, c));
  return reply;
}

grpc::Status DetailedStatus(grpc::StatusCode code, const std::string& message,
                            const std::vector<const google::protobuf::Message*>& details) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  for (const auto* detail : details) status.add_details()->PackFrom(*detail);
  return grpc::Status(code, message, status.SerializeAsString());
}

grpc::Status RetryAfter(absl::Duration delay) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(delay));
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int>(absl::ToInt64Nanoseconds(delay % absl::Seconds(1))));
  return DetailedStatus(grpc::StatusCode::UNAVAILABLE, "busy", {&retry});
}

class FakeServer::Inference : public v1::Inference::Service {
 public:
  explicit Inference(Handler handler) : handler_(std::move(handler)) {}

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    int call;
    {
      MutexLock lock(mutex_);
      call = static_cast<int>(requests_.size());
      requests_.push_back(*request);
      most_in_flight_ = std::max(most_in_flight_, ++in_flight_);
    }
    const grpc::Status status = Play(handler_(*request, call), context, writer);
    MutexLock lock(mutex_);
    cancelled_ += context->IsCancelled();
    return status;
  }

  int MostInFlight() {
    MutexLock lock(mutex_);
    return most_in_flight_;
  }

  Mutex mutex_;
  std::vector<v1::GenerateRequest> requests_ TESSERA_GUARDED_BY(mutex_);
  int in_flight_ TESSERA_GUARDED_BY(mutex_) = 0;
  int most_in_flight_ TESSERA_GUARDED_BY(mutex_) = 0;
  int cancelled_ TESSERA_GUARDED_BY(mutex_) = 0;

 private:
  grpc::Status Play(const Reply& reply, grpc::ServerContext* context,
                    grpc::ServerWriter<v1::GenerateResponse>* writer) {
    while (MostInFlight() < reply.gather) absl::SleepFor(absl::Milliseconds(1));
    v1::GenerateResponse response;
    if (reply.accepted) {
      response.mutable_accepted()->set_request_id("r");
      writer->Write(response);
    }
    absl::SleepFor(reply.first_delay);
    int tokens = 0;
    for (size_t i = 0; i < reply.deltas.size(); ++i) {
      if (i > 0) absl::SleepFor(reply.delta_delay);
      response.mutable_delta()->set_text(reply.deltas[i]);
      response.mutable_delta()->set_tokens(reply.tokens_per_delta);
      tokens += reply.tokens_per_delta;
      writer->Write(response);
    }
    while (reply.hang && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(2));
    {
      // Counts down before the client can see the end and send its next call.
      MutexLock lock(mutex_);
      --in_flight_;
    }
    if (!reply.status.ok()) return reply.status;
    if (!reply.finished) return grpc::Status::OK;
    v1::Finished& finished = *response.mutable_finished();
    finished.set_reason(v1::Finished::REASON_STOP);
    *finished.mutable_usage() = reply.usage;
    if (reply.explanation.ByteSizeLong() > 0) {
      *finished.mutable_explanation() = reply.explanation;
    }
    if (reply.usage.prompt_tokens() == 0) finished.mutable_usage()->set_prompt_tokens(10);
    if (reply.usage.output_tokens() == 0) finished.mutable_usage()->set_output_tokens(tokens);
    writer->Write(response);
    return grpc::Status::OK;
  }

  const Handler handler_;
};

// Two tokens a word, and five of template.
class FakeServer::Tokenizer : public v1::Tokenizer::Service {
 public:
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    if (!request->has_add_special_tokens()) {
      response->add_ids(1);
      response->add_pieces("<s>");
    }
    for (char c : request->text()) {
      response->add_ids(static_cast<unsigned char>(c));
      response->add_pieces(std::string(1, c));
    }
    return grpc::Status::OK;
  }
  grpc::Status CountTokens(grpc::ServerContext*, const v1::CountTokensRequest* request,
                           v1::CountTokensResponse* response) override {
    const std::vector<std::string> words =
        absl::StrSplit(Flatten(request->content()), ' ', absl::SkipEmpty());
    response->set_tokens(5 + 2 * static_cast<int>(words.size()));
    return grpc::Status::OK;
  }
};

class FakeServer::Control : public v1::Control::Service {
 public:
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    response->set_version("9.8.7");
    response->set_state(v1::GetServerInfoResponse::STATE_SERVING);
    response->set_uptime_seconds(75);
    (*response->mutable_flags())["listen"] = "here:1";
    return grpc::Status::OK;
  }
  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest*,
                            v1::GetModelInfoResponse* response) override {
    response->set_name("demo");
    response->set_parameters(11300000);
    response->add_kv_policies("none");
    response->add_kv_policies("akvq");
    return grpc::Status::OK;
  }
  grpc::Status GetLoad(grpc::ServerContext*, const v1::GetLoadRequest*,
                       v1::GetLoadResponse* response) override {
    response->set_running(3);
    response->set_kv_bytes_used(1 << 20);
    response->set_kv_bytes_total(4 << 20);
    response->set_kv_usage(0.25);
    return grpc::Status::OK;
  }
  grpc::Status GetCacheStats(grpc::ServerContext*, const v1::GetCacheStatsRequest*,
                             v1::GetCacheStatsResponse* response) override {
    auto& format = *response->add_formats();
    format.set_format("raw16");
    format.set_pages(7);
    response->set_prefix_lookup_tokens(40);
    response->set_prefix_hit_tokens(10);
    return grpc::Status::OK;
  }
};

FakeServer::FakeServer(Handler handler)
    : inference_(std::make_unique<Inference>(std::move(handler))),
      tokenizer_(std::make_unique<Tokenizer>()),
      control_(std::make_unique<Control>()) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(inference_.get());
  builder.RegisterService(tokenizer_.get());
  builder.RegisterService(control_.get());
  server_ = builder.BuildAndStart();
  TESSERA_CHECK(server_ != nullptr);
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
}

std::shared_ptr<grpc::Channel> FakeServer::channel() const {
  return Connect(Endpoint(address_)).value();
}

std::vector<v1::GenerateRequest> FakeServer::requests() {
  MutexLock lock(inference_->mutex_);
  return inference_->requests_;
}

int FakeServer::most_in_flight() { return inference_->MostInFlight(); }

int FakeServer::cancelled() {
  MutexLock lock(inference_->mutex_);
  return inference_->cancelled_;
}

std::string Flatten(const google::protobuf::RepeatedPtrField<v1::ContentPart>& parts) {
  std::string out;
  for (const v1::ContentPart& part : parts) {
    if (part.has_image()) {
      absl::StrAppend(&out, "[", part.image().data().size(), "]");
    } else {
      absl::StrAppend(&out, part.text());
    }
  }
  return out;
}

}  // namespace tessera::client
