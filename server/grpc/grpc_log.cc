#include "server/grpc/grpc_log.h"

#include "base/mutex.h"
#include "grpc/support/log.h"

namespace tessera {
namespace {

Mutex log_mutex;  // held while a line is written
Logger* current_log TESSERA_GUARDED_BY(log_mutex) = nullptr;

void WriteLine(gpr_log_func_args* args) {
  MutexLock lock(log_mutex);
  if (current_log == nullptr) return;
  const LogLevel level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug;
  current_log->Write(level, args->message, {{"component", "grpc"}, {"line", args->line}});
}

}  // namespace

void SetGrpcLog(Logger* log) {
  {
    MutexLock lock(log_mutex);
    current_log = log;
  }
  gpr_set_log_function(WriteLine);
}

void ForgetGrpcLog(const Logger* log) {
  MutexLock lock(log_mutex);
  if (current_log == log) current_log = nullptr;
}

}  // namespace tessera
