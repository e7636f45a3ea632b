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
// `device` is a name that MakeBackend knows, or "cuda_precise": cuda with BackendOptions::precise.
Checkpoint LoadCheckpoint(const std::string& dir, const std::string& device = "cpu",
                          int max_rows = 2048, int threads = 2);

// Returns the lines of a JSON Lines file.
std::vector<nlohmann::json> ReadLines(const std::string& path);

// Everything that the engine returned for one request.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::string text;
  Event last;
};

// Reads the events of one request and waits on its own condition variable.
class Reader {
 public:
  Reader();
  std::shared_ptr<OutputQueue> output_queue() { return output_queue_; }
  // Takes events until the last one; CHECK-fails after `limit`.
  Answer ReadAll(absl::Duration limit = absl::Minutes(2));
  // Waits for one more event. Returns false if it was the last one, or after `limit`.
  bool ReadOne(Answer* answer, absl::Duration limit = absl::Minutes(2));

 private:
  struct Signal;
  std::shared_ptr<Signal> signal_;
  std::shared_ptr<OutputQueue> output_queue_;
};

Request MakeRequest(const std::string& id, Prompt prompt, int max_tokens);
// Builds the prompt of one line of questions.jsonl.
Prompt PromptOfQuestion(const Checkpoint& c, const nlohmann::json& question,
                        const std::string& dir);
// Builds a prompt from ids, as tiny_gqa's golden.json has them.
Prompt PromptOfIds(const Checkpoint& c, const std::vector<int32_t>& ids,
                   const std::vector<std::string>& image_paths);

// Submits a request and reads all its events; CHECK-fails if the engine rejects it.
Answer Ask(Engine& engine, Request request);

}  // namespace tessera::testing
