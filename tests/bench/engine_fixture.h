// A real engine on a real checkpoint for benchmarks: requests in, step reports out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/runtime/engine.h"
#include "tests/bench/bench.h"

namespace tessera::bench {

// Returns the flags that every engine benchmark has.
std::vector<Flag> EngineFlags();

// Logs the time of every step. Read it only while the engine is idle.
class StepLog : public Observer {
 public:
  void OnStep(const StepReport& report, const EngineLoad&) override { steps.push_back(report); }
  std::vector<StepReport> steps;
};

struct BenchEngine {
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<StepLog> log;  // outlives the engine
  std::unique_ptr<Engine> engine;
};
// Opens the engine. REQUIRES: `options.kv_cache_bytes` is set.
absl::StatusOr<BenchEngine> MakeBenchEngine(const Flags& flags, const EngineOptions& options);

// Return a prompt of random text tokens, and one of random images with text between them.
Prompt RandomText(const ModelConfig& config, int tokens, uint64_t seed);
Prompt RandomPictures(const ModelConfig& config, int images, int text_tokens, uint64_t seed);

// Runs the prompts at once, `output` tokens each (no end of sequence, no caches), and waits.
// Returns the last events.
std::vector<Event> RunAll(Engine& engine, std::vector<Prompt> prompts, int output);

double Median(std::vector<double> values);

}  // namespace tessera::bench
