// The HTTP front end of /v1/chat/completions and /v1/completions: reads a request's JSON, and
// writes an ActiveRequest's answers, whole or as server-sent events.
//
// Lifetime: the request owns the writer; the registry and, until the answer is complete, the
// exchange hold the request.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/http/http_server.h"
#include "server/http/openai_reply.h"
#include "server/http/openai_request.h"
#include "server/request/active_request.h"
#include "server/request/request_registry.h"
#include "server/request/response_writer.h"
#include "server/request/service_context.h"

namespace tessera {

class OpenAiWriter final : public ResponseWriter {
 public:
  // Answers `exchange`. Returns at once.
  static void Start(const ServiceContext* services, RequestRegistry* registry,
                    std::shared_ptr<Lease> lease, OpenAiKind kind, std::string request_id,
                    std::shared_ptr<HttpExchange> exchange);

  // --- ResponseWriter
  void Accept(const std::vector<AcceptedPrompt>& prompts, int answers_each) override;
  bool Add(int answer, Event event) override;
  bool HasPending() const override { return !pending_.empty(); }
  void Break() override { exchange_->Abort(); }
  void Write() override;
  void Finish(const absl::Status& status) override;
  EndLabels CountEnd(const absl::Status& status) override;

 private:
  OpenAiWriter(const ServiceContext* services, OpenAiKind kind,
               std::shared_ptr<HttpExchange> exchange)
      : services_(services), kind_(kind), exchange_(std::move(exchange)) {}

  // Parses and admits a body, on a worker. Fills options_.
  absl::StatusOr<GenerationPlan> Parse(const std::string& body);
  void OnWritten();
  // Sends what is composed as the next piece of the stream.
  void SendPiece();
  void Respond(HttpResponse response);

  const ServiceContext* const services_;
  const OpenAiKind kind_;
  const std::shared_ptr<HttpExchange> exchange_;
  OpenAiRequest options_;               // without its prompts; set before Accept
  std::unique_ptr<OpenAiReply> reply_;  // from Accept on
  std::vector<OpenAiChoice> choices_;   // one for each answer
  std::vector<bool> shown_;             // the stream has a piece of this choice
  std::string pending_;                 // server-sent events to write
  bool began_ = false;                  // the stream's head was sent
  bool finishing_ = false;              // the stream's last piece was sent
};

}  // namespace tessera
