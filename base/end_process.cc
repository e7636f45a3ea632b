#include "base/end_process.h"

#include <stdexcept>

namespace tessera {
namespace {

[[noreturn]] void Throw(const std::string& why) { throw std::runtime_error(why); }

}  // namespace

void EndProcess(const std::string& why) noexcept { Throw(why); }

}  // namespace tessera
