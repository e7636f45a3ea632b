// The words by which RPCs are counted and logged.
#pragma once

#include <string>
#include <vector>

namespace tessera {

// Every method of our services ("Generate", ...): names do not repeat among services.
const std::vector<std::string>& RpcMethods();
// Names of gRPC's status codes by number: "OK", "CANCELLED", ...
const std::vector<std::string>& RpcCodes();

}  // namespace tessera
