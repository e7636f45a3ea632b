// The end of a process whose device has failed or whose memory is used up: what it would compute
// from here on is not to be trusted, so no caller goes on (ops.h).
#pragma once

#include <string>

namespace tessera {

// By std::terminate, with a std::runtime_error of this text in flight: the program's handler may
// tell others before it leaves (server/process/crash_handler.h), the C++ library's prints the text and
// aborts. Threads: safe.
[[noreturn]] void EndProcess(const std::string& why) noexcept;

}  // namespace tessera
