#include "server/observability/http_names.h"

namespace tessera {

const std::vector<std::string>& HttpRoutes() {
  static const std::vector<std::string> kRoutes = {"/v1/chat/completions",
                                                   "/v1/completions",
                                                   "/v1/models",
                                                   "/tokenize",
                                                   "/detokenize",
                                                   "/health",
                                                   "/version",
                                                   "/metrics",
                                                   "other"};
  return kRoutes;
}

const std::vector<std::string>& HttpStatuses() {
  static const std::vector<std::string> kStatuses = {"200", "400", "401", "403", "404",
                                                     "405", "409", "413", "429", "499",
                                                     "500", "501", "503", "504", "other"};
  return kStatuses;
}

}  // namespace tessera
