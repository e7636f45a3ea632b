// The loaded model and everything made from it.
//
// The daemon fills it while it is STARTING. Front ends touch it only after
// Lifecycle::CheckAccepting or CheckLoaded returned OK, which orders the accesses. Threads:
// read-only from then on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/model/model_config.h"
#include "engine/prompt/prompt_builder.h"
#include "engine/text/tokenizer.h"
#include "server/request/engine_api.h"

namespace tessera {

struct Runtime {
  ModelConfig model;
  int context_tokens = 0;
  int64_t parameters = 0;
  int64_t loaded_unix_seconds = 0;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<PromptBuilder> prompts;
  std::unique_ptr<EngineApi> engine;
};

}  // namespace tessera
