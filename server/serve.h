// The program tesserad: flags, device, daemon, wait for a signal, drain.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "server/process/config.h"

namespace tessera {

// Opens the device: OpenDevice (load_model.h), or in tests a device that fails.
using DeviceOpener = std::function<absl::StatusOr<std::unique_ptr<Ops>>(const ServerConfig&)>;

// Runs the daemon. Returns the exit status: 0 after a drain, 1 if it cannot start, with a line on
// standard error. A later failure ends the process with another status: crash_handler.h.
int Serve(int argc, char** argv, const DeviceOpener& open);

}  // namespace tessera
