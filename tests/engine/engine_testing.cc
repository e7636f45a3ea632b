#include "tests/engine/engine_testing.h"

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_split.h"
#include "base/base.h"
#include "base/mutex.h"
#include "cache/policies/registry.h"
#include "kernels/backend/backend.h"
#include "tests/support/paths.h"

namespace tessera::testing {
namespace {

template <class T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) CheckFailed(__FILE__, __LINE__, value.status().ToString().c_str());
  return std::move(value).value();
}

std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  TESSERA_CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

Prompt Build(const Checkpoint& c, PromptInput input, const std::vector<std::string>& paths) {
  std::vector<std::string> bytes;
  for (const std::string& path : paths) bytes.push_back(ReadBytes(path));
  for (size_t i = 0; i < bytes.size(); ++i) input.images.push_back({bytes[i], ""});
  return ValueOrDie(PromptBuilder(&c.config, c.tokenizer.get(), {}).Build(input));
}

}  // namespace

Checkpoint LoadCheckpoint(const std::string& dir, const std::string& device, int max_rows,
                          int threads) {
  Checkpoint c;
  c.config = ValueOrDie(LoadModelConfig(dir));
  c.tokenizer = ValueOrDie(Tokenizer::Load(dir));
  auto weights = ValueOrDie(OpenSafetensors(dir));
  BackendOptions options;
  options.cpu_threads = threads;
  options.precise = device == "cuda_precise";
  c.model = ValueOrDie(LlavaModel::Load(
      c.config, *weights, ValueOrDie(MakeBackend(options.precise ? "cuda" : device, options)),
      max_rows));
  return c;
}

std::vector<nlohmann::json> ReadLines(const std::string& path) {
  std::vector<nlohmann::json> out;
  for (const absl::string_view line : absl::StrSplit(ReadBytes(path), '\n', absl::SkipEmpty()))
    out.push_back(nlohmann::json::parse(line.begin(), line.end()));
  return out;
}

struct Reader::Signal {
  Mutex mutex;
  CondVar ready;
  bool raised TESSERA_GUARDED_BY(mutex) = false;
};

Reader::Reader() : signal_(std::make_shared<Signal>()) {
  output_queue_ = std::make_shared<OutputQueue>([signal = signal_] {
    MutexLock lock(signal->mutex);
    signal->raised = true;
    signal->ready.NotifyAll();
  });
}

bool Reader::ReadOne(Answer* answer, absl::Duration limit) {
  const absl::Time deadline = SteadyNow() + limit;
  while (true) {
    std::optional<Event> event = output_queue_->Take(SteadyNow());
    if (event.has_value()) {
      answer->ids.insert(answer->ids.end(), event->ids.begin(), event->ids.end());
      for (const TokenLogprob& l : event->logprobs) answer->logprobs.push_back(l.logprob);
      answer->text += event->text;
      const bool done = event->done;
      answer->last = *std::move(event);
      return !done;
    }
    Signal& signal = *signal_;
    MutexLock lock(signal.mutex);
    while (!signal.raised && signal.ready.WaitUntil(signal.mutex, deadline)) {
    }
    if (!std::exchange(signal.raised, false)) return false;
  }
}

Answer Reader::ReadAll(absl::Duration limit) {
  Answer answer;
  const absl::Time deadline = SteadyNow() + limit;
  while (ReadOne(&answer, deadline - SteadyNow())) {
  }
  TESSERA_CHECK(answer.last.done);
  return answer;
}

Request MakeRequest(const std::string& id, Prompt prompt, int max_tokens) {
  Request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.stop.max_tokens = max_tokens;
  r.policy = ValueOrDie(ParsePolicy("none"));
  r.received = SteadyNow();
  return r;
}

Prompt PromptOfQuestion(const Checkpoint& c, const nlohmann::json& question,
                        const std::string& dir) {
  PromptInput input;
  const std::vector<std::string> texts =
      absl::StrSplit(question["prompt"].get<std::string>(), "<image>");
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) input.raw.push_back({PromptPiece::Kind::kImage, ""});
    input.raw.push_back({PromptPiece::Kind::kText, texts[i]});
  }
  std::vector<std::string> paths;
  for (const auto& name : question["images"]) paths.push_back(dir + "/" + name.get<std::string>());
  return Build(c, std::move(input), paths);
}

Prompt PromptOfIds(const Checkpoint& c, const std::vector<int32_t>& ids,
                   const std::vector<std::string>& image_paths) {
  PromptInput input;
  input.ids = ids;
  return Build(c, std::move(input), image_paths);
}

Answer Ask(Engine& engine, Request request) {
  Reader reader;
  const absl::Status status = engine.Submit(std::move(request), reader.output_queue(), nullptr);
  if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.ToString().c_str());
  return reader.ReadAll();
}

}  // namespace tessera::testing
