#include "engine/runtime/engine.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "engine/request/field_error.h"
#include "engine/runtime/engine_core.h"

namespace tessera {

Engine::Engine(std::unique_ptr<LlavaModel> model, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineOptions& options, Observer* observer)
    : options_(options),
      queue_(options.max_queue),
      core_(std::make_unique<EngineCore>(std::move(model), std::move(tokenizer), options, observer,
                                         &queue_)),
      thread_([this] { core_->Run(); }) {}

Engine::~Engine() { Stop(); }

void Engine::Stop() {
  queue_.Stop();
  if (thread_.joinable()) thread_.join();
}

absl::Status Engine::Submit(Request request, std::shared_ptr<OutputQueue> output_queue,
                            int* queue_position) {
  TESSERA_CHECK(!request.prompt.ids.empty() && request.stop.max_tokens > 0 &&
                request.policy != nullptr);
  RETURN_IF_ERROR(CheckPolicy(&request));
  RETURN_IF_ERROR(CheckSize(request));
  return queue_.Push(std::move(request), std::move(output_queue), queue_position);
}

absl::Status Engine::CheckPolicy(Request* request) const {
  const KvGeometry geometry = model_config().text.kv_geometry();
  request->policy = request->policy->ForModel(model_config().text.family);
  if (const absl::Status fits = request->policy->CheckGeometry(geometry); !fits.ok()) {
    return RequestFieldError({.field = RequestField::kPolicy}, fits.message(),
                             absl::StatusCode::kFailedPrecondition);
  }
  const Ops& ops = core_->model().ops();
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    if ((request->policy->FormatMask(geometry) >> f & 1) == 0 || ops.Supports(format)) continue;
    return RequestFieldError(
        {.field = RequestField::kPolicy},
        absl::StrCat(request->policy->Text(), " stores pages of format ", FormatName(format),
                     ", which device ", ops.name(), " lacks"),
        absl::StatusCode::kFailedPrecondition);
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckSize(const Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.ids.size());
  const int64_t total = prompt + request.stop.max_tokens;
  if (total > context_tokens()) {
    return RequestFieldError(
        {.field = RequestField::kMaxTokens, .over_limit = true},
        absl::StrCat("prompt of ", prompt, " tokens + max_tokens ", request.stop.max_tokens,
                     " exceed the context of ", context_tokens()));
  }
  // Tokens of the prompt behind the commit point are stored as an answer's are.
  const std::vector<uint8_t> vision = VisionFlags(request.prompt);
  const int64_t commit = request.commit_tokens > 0 ? request.commit_tokens : prompt;
  TESSERA_CHECK(commit <= prompt &&
                (request.prompt.images.empty() || request.prompt.images.back().begin < commit));
  const int64_t bytes =
      request.policy->PeakBytes(PromptView{absl::MakeConstSpan(vision).first(commit)},
                                total - commit, model_config().text.kv_geometry());
  const int64_t capacity = core_->kv_bytes();
  if (bytes > capacity) {
    return RequestFieldError(
        {.field = RequestField::kMaxTokens, .over_limit = true},
        absl::StrCat(total, " tokens need ", bytes, " bytes of KV cache under policy ",
                     request.policy->Text(), ", the server has ", capacity));
  }
  return absl::OkStatus();
}

const ModelConfig& Engine::model_config() const { return core_->model().config(); }
int64_t Engine::parameters() const { return core_->model().parameters(); }
int Engine::context_tokens() const { return core_->context_tokens(); }

}  // namespace tessera
