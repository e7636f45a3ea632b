// gRPC's own log lines, in the daemon's log. gRPC calls back a plain function, so this is the one
// global. Threads: safe.
#pragma once

#include "server/observability/log.h"

namespace tessera {

// From now on lines go to `log`: errors as warnings, the rest as debug.
void SetGrpcLog(Logger* log);
// Before `log` goes: gRPC's threads may have something to say after the last server has gone. Does
// nothing if another one was set meanwhile.
void ForgetGrpcLog(const Logger* log);

}  // namespace tessera
