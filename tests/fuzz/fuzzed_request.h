// The contract of parsing: every GenerateRequest becomes a client's error, printable and within the
// codes of the contract, or values that the engine relies on.
#pragma once

#include "tessera/v1/inference.pb.h"

namespace tessera {

// Parses `in`, and aborts if the result breaks that contract.
void ConvertAndCheck(const v1::GenerateRequest& in);

}  // namespace tessera
