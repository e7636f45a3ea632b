// The version of this build. CMakeLists.txt is its only source. Threads: safe.
#pragma once

namespace tessera {

// Returns "major.minor.patch".
const char* Version();

}  // namespace tessera
