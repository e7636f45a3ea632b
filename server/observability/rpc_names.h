// The label values of gRPC metrics.
#pragma once

#include <string>
#include <vector>

namespace tessera {

// Every method of our services ("Generate", ...). No two services share a name.
const std::vector<std::string>& RpcMethods();
// Names of gRPC's status codes by number: "OK", "CANCELLED", ...
const std::vector<std::string>& RpcCodes();

}  // namespace tessera
