#include "tests/bench/engine_fixture.h"

#include <algorithm>
#include <condition_variable>
#include <random>

#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"
#include "engine/weights/weights.h"
#include "kernels/backend/backend.h"

namespace tessera::bench {

std::vector<Flag> EngineFlags() {
  return {{"model", "models/demo", "checkpoint directory"},
          {"device", "cpu", "cpu, cuda or reference"},
          {"threads", "2", "threads of the CPU backend"}};
}

absl::StatusOr<BenchEngine> MakeBenchEngine(const Flags& flags, const EngineOptions& options) {
  BenchEngine out;
  const std::string& dir = flags.Text("model");
  ASSIGN_OR_RETURN(out.config, LoadModelConfig(dir));
  ASSIGN_OR_RETURN(out.tokenizer, Tokenizer::Load(dir));
  ASSIGN_OR_RETURN(const auto weights, OpenSafetensors(dir));
  BackendOptions backend;
  backend.cpu_threads = static_cast<int>(flags.Number("threads"));
  ASSIGN_OR_RETURN(auto ops, MakeBackend(flags.Text("device"), backend));
  ASSIGN_OR_RETURN(
      auto model, LlavaModel::Load(out.config, *weights, std::move(ops), options.max_batch_tokens));
  out.log = std::make_unique<StepLog>();
  out.engine = std::make_unique<Engine>(std::move(model), out.tokenizer, options, out.log.get());
  return out;
}

Prompt RandomText(const ModelConfig& config, int tokens, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Prompt p;
  p.ids.push_back(config.bos_token);
  while (static_cast<int>(p.ids.size()) < tokens)
    p.ids.push_back(static_cast<int32_t>(3 + rng() % (config.image_token - 3)));
  return p;
}

Prompt RandomPictures(const ModelConfig& config, int images, int text_tokens, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Prompt p = RandomText(config, text_tokens, seed);
  for (int i = 0; i < images; ++i) {
    auto image = std::make_shared<PreparedImage>();
    image->side = config.vision.image_size;
    image->rgb.resize(size_t{3} * image->side * image->side);
    for (uint8_t& b : image->rgb) b = static_cast<uint8_t>(rng());
    image->digest = Hasher().Add(image->rgb.data(), image->rgb.size()).Finish();
    p.images.push_back({static_cast<int32_t>(p.ids.size()), image});
    p.ids.insert(p.ids.end(), config.tokens_per_image(), config.image_token);
    p.image_tokens += config.tokens_per_image();
    p.ids.push_back(3 + i);
  }
  return p;
}

std::vector<Event> RunAll(Engine& engine, std::vector<Prompt> prompts, int output) {
  Mutex mutex;
  std::condition_variable_any ready;
  bool raised = false;
  std::vector<std::shared_ptr<OutputQueue>> boxes;
  const auto policy = ParsePolicy("none");
  for (size_t i = 0; i < prompts.size(); ++i) {
    boxes.push_back(std::make_shared<OutputQueue>([&] {
      MutexLock lock(mutex);
      raised = true;
      ready.notify_all();
    }));
    Request r;
    r.id = absl::StrCat("bench-", i);
    r.prompt = std::move(prompts[i]);
    r.stop.max_tokens = output;
    r.stop.ignore_eos = true;
    r.policy = *policy;
    r.bypass_prefix = true;
    r.received = SteadyNow();
    const absl::Status status = engine.Submit(std::move(r), boxes.back(), nullptr);
    if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
  }
  std::vector<Event> last(boxes.size());
  size_t done = 0;
  while (done < boxes.size()) {
    for (size_t i = 0; i < boxes.size(); ++i) {
      while (std::optional<Event> e = boxes[i]->Take(SteadyNow())) {
        if (!e->done) continue;
        TESSERA_CHECK(e->status.ok());
        last[i] = *std::move(e);
        ++done;
      }
    }
    std::unique_lock<Mutex> lock(mutex);
    if (done < boxes.size()) ready.wait(lock, [&] { return raised; });
    raised = false;
  }
  // Waits until the loop is idle and its last report is written, because the log is read next.
  while (engine.Load().running + engine.Load().waiting > 0) absl::SleepFor(absl::Milliseconds(1));
  return last;
}

double Median(std::vector<double> values) {
  TESSERA_CHECK(!values.empty());
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace tessera::bench
