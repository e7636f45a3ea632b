// The words by which HTTP requests are counted and logged.
#pragma once

#include <string>
#include <vector>

namespace tessera {

// Every route of the gateway, and "other".
const std::vector<std::string>& HttpRoutes();
// Every status that the gateway gives, and "other".
const std::vector<std::string>& HttpStatuses();

}  // namespace tessera
