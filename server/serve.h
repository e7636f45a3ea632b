// The program tesserad: flags, device, daemon, wait for a signal, drain.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "server/process/config.h"

namespace tessera {

// OpenDevice (load_model.h); tests give a device that fails.
using DeviceOpener = std::function<absl::StatusOr<std::unique_ptr<Ops>>(const ServerConfig&)>;

// Returns the exit status: 0 after a drain, 1 with a line on standard error where it cannot start.
// What cannot go on later ends the process with another one: crash_handler.h.
int Serve(int argc, char** argv, const DeviceOpener& open);

}  // namespace tessera
