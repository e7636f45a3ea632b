#include "server/observability/rpc_names.h"

namespace tessera {

const std::vector<std::string>& RpcMethods() {
  static const std::vector<std::string> kMethods = {
      "Generate",     "Tokenize", "Detokenize",    "CountTokens", "ApplyTemplate", "GetServerInfo",
      "GetModelInfo", "GetLoad",  "GetCacheStats", "Abort",       "FlushCache",    "Drain"};
  return kMethods;
}

const std::vector<std::string>& RpcCodes() {
  static const std::vector<std::string> kCodes = {"OK",
                                                  "CANCELLED",
                                                  "UNKNOWN",
                                                  "INVALID_ARGUMENT",
                                                  "DEADLINE_EXCEEDED",
                                                  "NOT_FOUND",
                                                  "ALREADY_EXISTS",
                                                  "PERMISSION_DENIED",
                                                  "RESOURCE_EXHAUSTED",
                                                  "FAILED_PRECONDITION",
                                                  "ABORTED",
                                                  "OUT_OF_RANGE",
                                                  "UNIMPLEMENTED",
                                                  "INTERNAL",
                                                  "UNAVAILABLE",
                                                  "DATA_LOSS",
                                                  "UNAUTHENTICATED"};
  return kCodes;
}

}  // namespace tessera
