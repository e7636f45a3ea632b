// tesserad on a device that fails. Usage: faulty_tesserad FAULT FLAGS... (faulty_ops.h).
#include <cstdio>

#include "server/load_model.h"
#include "server/serve.h"
#include "tests/e2e/faulty_ops.h"

int main(int argc, char** argv) {
  using namespace tessera;
  const absl::StatusOr<Fault> fault = ParseFault(argc > 1 ? argv[1] : "");
  if (!fault.ok()) {
    std::fprintf(stderr, "%s\n", fault.status().ToString().c_str());
    return 2;
  }
  argv[1] = argv[0];
  return Serve(argc - 1, argv + 1,
               [&](const ServerConfig& config) -> absl::StatusOr<std::unique_ptr<Ops>> {
                 ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, OpenDevice(config));
                 return MakeFaulty(std::move(ops), *fault);
               });
}
