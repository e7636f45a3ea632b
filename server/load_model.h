// Makes a running engine from the configuration: backend, checkpoint, tokenizer, prompt builder.
//
// Errors name the flag or the file. Threads: one thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request/observer.h"
#include "kernels/ops.h"
#include "server/process/config.h"
#include "server/request/runtime.h"

namespace tessera {

// Opens the backend that --device and --cpu_threads name.
absl::StatusOr<std::unique_ptr<Ops>> OpenDevice(const ServerConfig& config);
// Returns "cpu (avx2, 2 threads)", for people.
std::string DescribeDevice(const Ops& ops, const ServerConfig& config);

PromptLimits MakePromptLimits(const ServerConfig& config);

// Loads the model onto `ops` and starts the engine. `observer` must outlive runtime->engine.
absl::Status LoadModel(const ServerConfig& config, std::unique_ptr<Ops> ops, Observer* observer,
                       Runtime* runtime);

}  // namespace tessera
