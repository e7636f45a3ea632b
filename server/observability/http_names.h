// The label values of HTTP metrics.
#pragma once

#include <string>
#include <vector>

namespace tessera {

// Every route of the gateway, and "other".
const std::vector<std::string>& HttpRoutes();
// Every status that the gateway answers with, and "other".
const std::vector<std::string>& HttpStatuses();

}  // namespace tessera
