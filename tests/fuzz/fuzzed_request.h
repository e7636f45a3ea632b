// What every GenerateRequest, however it came to be, must be turned into: an error of the client's,
// printable and within the codes that the contract names, or values that the engine relies on.
#pragma once

#include "tessera/v1/inference.pb.h"

namespace tessera {

// Aborts where the conversion breaks its word.
void ConvertAndCheck(const v1::GenerateRequest& in);

}  // namespace tessera
