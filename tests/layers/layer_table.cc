#include "tests/layers/layer_table.h"

namespace tessera::layers {

const std::vector<Folder>& Folders() {
  // clang-format off
  static const auto* folders = new std::vector<Folder>{
      {"base", {}, {""}},
      {"kernels", {"base"},
       {"layout", "", "host", "reference", "cpu/simd", "cpu", "cuda/common", "cuda/elementwise",
        "cuda/gemm", "cuda/kv", "cuda/low_pass", "cuda/sampling", "cuda/attention/paged",
        "cuda/attention/decode", "cuda/attention/prefill", "cuda/attention",
        "cuda/attention/vit", "cuda", "backend"}},
      {"cache", {"base", "kernels"}, {"pages", "policy", "policies", ""}},
      {"vision", {"base", "kernels"}, {"codecs", "processor", "tower"}},
      {"engine", {"base", "kernels", "cache", "vision"},
       {"request", "text", "weights", "sampling", "transfer", "statistics", "model", "prompt",
        "runtime"}},
      {"tools", {"base", "kernels", "cache", "vision", "engine"}, {"stress"}},
      {"proto", {}, {}},
      {"server", {"base", "kernels", "cache", "vision", "engine", "proto", "tessera"},
       {"observability", "net", "api", "access", "process", "images", "request", "grpc", "http",
        ""}},
      {"client", {"base", "proto", "tessera", "tools"},
       {"cli", "rpc", "report", "load", "commands", ""}},
      {"tests", {"base", "kernels", "cache", "vision", "engine", "tools", "proto", "server",
                 "client", "tessera"}, {}},
  };
  // clang-format on
  return *folders;
}

const std::vector<Confined>& ConfinedIncludes() {
  static const auto* confined = new std::vector<Confined>{
      {"grpc", {"server", "client", "tests"}},
      {"google/protobuf/", {"server", "client", "tests"}},
      {"google/rpc/", {"server", "client", "tests"}},
      {"spdlog/", {"server", "tests"}},
      {"fmt/", {"server", "tests"}},
      {"prometheus/", {"server", "tests"}},
      {"civetweb", {"server", "tests"}},
      {"Civet", {"server", "tests"}},
      {"boost/", {"server", "client", "tests"}},
      {"cuda", {"kernels", "tests"}},
      {"cublas", {"kernels", "tests"}},
  };
  return *confined;
}

const std::vector<Confined>& ConfinedTargets() {
  static const auto* confined = new std::vector<Confined>{
      {"gRPC::", {"server", "client", "proto", "tests"}},
      {"protobuf::", {"server", "client", "proto", "tests"}},
      {"spdlog::", {"server", "tests"}},
      {"fmt::", {"server", "tests"}},
      {"prometheus-cpp::", {"server", "tests"}},
      {"civetweb::", {"server", "tests"}},
      {"CUDA::", {"kernels", "tests"}},
  };
  return *confined;
}

const std::vector<absl::string_view>& LongTables() {
  static const std::vector<absl::string_view> tables = {"server/observability/metrics_table.cc"};
  return tables;
}

}  // namespace tessera::layers
