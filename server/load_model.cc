#include "server/load_model.h"

#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "engine/model/llava.h"
#include "engine/weights/weights.h"
#include "kernels/backend/backend.h"

namespace tessera {
namespace {

constexpr uint64_t kDummySeed = 1;

EngineOptions MakeEngineOptions(const ServerConfig& config) {
  EngineOptions options;
  options.image_cache_bytes = config.image_cache_bytes;
  options.max_batch_tokens = config.max_batch_tokens;
  options.max_sequences = config.max_sequences;
  options.max_queue = config.max_queue;
  options.context_tokens = config.context_tokens;
  options.prefix_cache = config.prefix_cache;
  options.stall_timeout = config.stall_timeout;
#ifdef TESSERA_DEBUG_CHECKS
  options.check_integrity = true;
#endif
  return options;
}

}  // namespace

PromptLimits MakePromptLimits(const ServerConfig& config) {
  PromptLimits limits;
  limits.image.max_bytes = config.max_image_bytes;
  limits.image.max_pixels = config.max_image_pixels;
  limits.context_tokens = config.context_tokens;
  return limits;
}

absl::StatusOr<std::unique_ptr<Ops>> OpenDevice(const ServerConfig& config) {
  BackendOptions options;
  options.cpu_threads = config.cpu_threads;
  auto ops = MakeBackend(config.device, options);
  if (!ops.ok()) {
    return absl::Status(ops.status().code(),
                        absl::StrCat("--device=", config.device, ": ", ops.status().message()));
  }
  return ops;
}

std::string DescribeDevice(const Ops& ops, const ServerConfig& config) {
  const std::string name = ops.name();
  if (name != "cpu") return name;
  const unsigned threads = config.cpu_threads > 0 ? static_cast<unsigned>(config.cpu_threads)
                                                  : std::thread::hardware_concurrency();
  return absl::StrCat(name, " (", CpuInstructionSet(), ", ", threads,
                      threads == 1 ? " thread)" : " threads)");
}

namespace {

// Rejects an arena larger than physical memory at start, before the kernel kills the process.
absl::Status CheckMemory(const ServerConfig& config, const Ops& ops) {
  if (absl::string_view(ops.name()) == "cuda") return absl::OkStatus();  // the device's own memory
  constexpr int64_t kMiB = 1 << 20;
  const int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE) / kMiB * kMiB;
  if (config.kv_cache_bytes.bytes < bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--kv_cache_bytes=", FormatArenaSize(config.kv_cache_bytes),
                   ": this machine has ", FormatByteSize(bytes)));
}

// Returns true if a request may have a policy that reads low-pass residuals.
bool MayMeasureLowPass(const ServerConfig& config) {
  const auto measures = [](absl::string_view policy) {
    const auto parsed = ParsePolicy(policy);
    return parsed.ok() && (*parsed)->needs().low_pass;
  };
  std::vector<std::string> names = config.kv_policy_allow;
  if (names.empty()) {
    for (PolicyInfo& info : PolicyTable()) names.push_back(std::move(info.name));
  }
  names.push_back(config.kv_policy);
  return std::any_of(names.begin(), names.end(), measures);
}

}  // namespace

absl::Status LoadModel(const ServerConfig& config, std::unique_ptr<Ops> ops, Observer* observer,
                       Runtime* runtime) {
  RETURN_IF_ERROR(CheckMemory(config, *ops));
  ASSIGN_OR_RETURN(runtime->model, LoadModelConfig(config.model));
  if (!config.model_name.empty()) runtime->model.name = config.model_name;
  if (config.context_tokens > runtime->model.text.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("--context_tokens=", config.context_tokens,
                                                   ": the model was trained for ",
                                                   runtime->model.text.max_positions));
  }
  ASSIGN_OR_RETURN(runtime->tokenizer, Tokenizer::Load(config.model));
  runtime->prompts = std::make_unique<PromptBuilder>(&runtime->model, runtime->tokenizer.get(),
                                                     MakePromptLimits(config));
  std::unique_ptr<TensorSource> source;
  if (config.load_format == "dummy") {
    source = MakeDummyWeights(runtime->model.dtype, kDummySeed);
  } else {
    ASSIGN_OR_RETURN(source, OpenSafetensors(config.model));
  }
  ASSIGN_OR_RETURN(
      std::unique_ptr<LlavaModel> model,
      LlavaModel::Load(runtime->model, *source, std::move(ops), config.max_batch_tokens));
  runtime->parameters = model->parameters();
  EngineOptions options = MakeEngineOptions(config);
  // Steps on the CPU are long, and little of their work is done only once.
  options.warm_up = model->ops().asynchronous();
  options.warm_up_low_pass = MayMeasureLowPass(config);
  ASSIGN_OR_RETURN(
      options.kv_cache_bytes,
      ArenaBytes(config.kv_cache_bytes, model->ops().FreeBytes(), config.image_cache_bytes));
  runtime->context_tokens =
      config.context_tokens > 0 ? config.context_tokens : runtime->model.text.max_positions;
  runtime->engine =
      std::make_unique<RealEngine>(std::move(model), runtime->tokenizer, options, observer);
  return absl::OkStatus();
}

}  // namespace tessera
