#include "base/version.h"

namespace tessera {

const char* Version() { return TESSERA_VERSION; }

}  // namespace tessera
