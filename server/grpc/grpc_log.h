// Writes gRPC's own log lines to the daemon's log. gRPC calls a plain function, so this is the only
// global. Threads: safe.
#pragma once

#include "server/observability/log.h"

namespace tessera {

// Sends lines to `log` from now on: errors as warnings, the rest as debug.
void SetGrpcLog(Logger* log);
// Stops that before `log` is destroyed: gRPC's threads may log after the last server has gone. Does
// nothing if another log was set in between.
void ForgetGrpcLog(const Logger* log);

}  // namespace tessera
