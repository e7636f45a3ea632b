// One /v1/chat/completions or /v1/completions call: from the request's arrival to the last byte of
// its answer.
//
//   handler:  worker: parse -> fetcher: pictures named by URL, if any
//             -> worker: decode pictures, build the prompts, submit the first answer of each
//   engine:   output_queue notifies -> sender: take events, write a piece (or gather, if not
//   streaming) written:  take the next events ... -> all answers done: usage, [DONE], end
//
// Further answers of a prompt (n > 1) are submitted once its first has shown a token: the prompt's
// pages are in the prefix index then, and are shared. A client that goes away, the deadline and
// Abort end all of them. Every decision is taken under mutex_; what follows is done outside it.
// Lifetime: the registry and the exchange hold the call until its end; output_queuees know it
// weakly.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "engine/request/output_queue.h"
#include "server/http/http_server.h"
#include "server/http/openai_reply.h"
#include "server/http/openai_request.h"
#include "server/request/service_context.h"
#include "server/request/stream_registry.h"

namespace tessera {

class OpenAiCall final : public ActiveCall, public std::enable_shared_from_this<OpenAiCall> {
 public:
  OpenAiCall(const ServiceContext* services, StreamRegistry* registry, std::shared_ptr<Grant> grant,
             OpenAiKind kind, std::string request_id, std::shared_ptr<HttpExchange> exchange);

  void Start();  // once

  // --- ActiveCall
  std::string id() const override { return id_; }
  void End(const absl::Status& status) override;
  // A stalled connection is cut by the HTTP server's own write timeout.
  bool CancelIfStalled(absl::Time, absl::Duration) override { return false; }

 private:
  enum class Phase {
    kPreparing,  // the worker's
    kAnswering,
    kLast,   // the stream's last piece is being written
    kEnded,  // everything is with the exchange
  };
  struct Answer {  // beside the OpenAiChoice of the same index
    std::shared_ptr<OutputQueue> output_queue;
    Request waiting;  // of an answer that is not submitted yet
    bool submitted = false;
    bool shown = false;  // some piece of it was sent
  };
  // What is to be done outside the lock.
  struct Step {
    enum class Do { kNothing, kRespond, kBegin, kWrite } what = Do::kNothing;
    std::string bytes;
    std::vector<int> submit;  // answers whose prompt is computed now
  };

  void Prepare();                     // on a worker
  absl::Status Parse();               // fills in_ and requests_
  absl::Status BuildAndSubmit();      // from them
  void Begin(absl::Status prepared);  // the first look at the output_queuees
  absl::Status Submit(int index, Request request);
  void Pump();
  Step NextLocked() TESSERA_REQUIRES(mutex_);
  // Takes what the output_queuees hold; adds pieces to `step` when streaming.
  absl::Status TakeLocked(Step* step) TESSERA_REQUIRES(mutex_);
  void SubmitWaiting(const std::vector<int>& indices);
  void OnWritten();
  void OnGone();
  void Finish();  // once: counts, logs, leaves the registry

  const ServiceContext* const services_;
  StreamRegistry* const registry_;
  const std::shared_ptr<Grant> grant_;
  const OpenAiKind kind_;
  const std::string id_;
  const absl::Time received_;
  const absl::Time deadline_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string peer_, trace_;
  // The worker's, and constant once it is done.
  OpenAiRequest in_;               // until its prompts are built
  std::vector<Request> requests_;  // one a prompt of in_
  bool stream_ = false, include_usage_ = false, continuous_usage_ = false;
  std::unique_ptr<OpenAiReply> reply_;

  mutable Mutex mutex_;
  Phase phase_ TESSERA_GUARDED_BY(mutex_) = Phase::kPreparing;
  std::vector<Answer> answers_ TESSERA_GUARDED_BY(mutex_);
  std::vector<OpenAiChoice> choices_ TESSERA_GUARDED_BY(mutex_);
  bool began_ TESSERA_GUARDED_BY(mutex_) = false;  // the stream's head was sent
  bool writing_ TESSERA_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> forced_ TESSERA_GUARDED_BY(mutex_);  // by End
  absl::Status final_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
