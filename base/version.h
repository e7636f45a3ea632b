// The version of this build, as CMakeLists.txt has it. Threads: safe.
#pragma once

namespace tessera {

const char* Version();  // "0.1.0"

}  // namespace tessera
