// Ends a process whose device has failed or whose memory is used up. Results after such an error
// cannot be trusted, so no caller continues (kernels/ops.h).
#pragma once

#include <string>

namespace tessera {

// Calls std::terminate with a std::runtime_error of this text in flight. The daemon's handler tells
// clients before the process ends (server/process/crash_handler.h). The C++ library's default
// handler prints the text and aborts. Threads: safe.
[[noreturn]] void EndProcess(const std::string& why) noexcept;

}  // namespace tessera
