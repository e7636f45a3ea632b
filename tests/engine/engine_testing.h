// Helpers for tests that run the real engine on the checkpoints in the repository.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/model/model_config.h"
#include "engine/prompt/prompt_builder.h"
#include "engine/runtime/engine.h"
#include "engine/text/tokenizer.h"
#include "engine/weights/weights.h"
#include "nlohmann/json.hpp"
#include "tests/support/paths.h"

namespace tessera::testing {

using ::tessera::SourcePath;

// A checkpoint's parts, loaded for one engine.
struct Checkpoint {
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<LlavaModel> model;
};
// `device`: of MakeBackend, or "cuda_precise" for cuda with BackendOptions::precise.
Checkpoint LoadCheckpoint(const std::string& dir, const std::string& device = "cpu",
                          int max_rows = 2048, int threads = 2);

// Lines of a JSON-lines file.
std::vector<nlohmann::json> ReadLines(const std::string& path);

// Everything that one request produced.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::string text;
  Event last;
};

// A request's reading end, for tests: waits on its own condition variable.
class Reader {
 public:
  Reader();
  std::shared_ptr<OutputQueue> output_queue() { return output_queue_; }
  // Takes events until the end; CHECK-fails after `limit`.
  Answer ReadAll(absl::Duration limit = absl::Minutes(2));
  // Waits for one more event; false when it was the last one or after `limit`.
  bool ReadOne(Answer* answer, absl::Duration limit = absl::Minutes(2));

 private:
  struct Signal;
  std::shared_ptr<Signal> signal_;
  std::shared_ptr<OutputQueue> output_queue_;
};

Request MakeRequest(const std::string& id, Prompt prompt, int max_tokens);
// The prompt of one line of questions.jsonl or of tiny_gqa's golden.json (`ids`).
Prompt PromptOfQuestion(const Checkpoint& c, const nlohmann::json& question,
                        const std::string& dir);
Prompt PromptOfIds(const Checkpoint& c, const std::vector<int32_t>& ids,
                   const std::vector<std::string>& image_paths);

// Submits and reads to the end; CHECK-fails if the engine refuses.
Answer Ask(Engine& engine, Request request);

}  // namespace tessera::testing
