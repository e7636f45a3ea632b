// `tessera health`: asks the standard gRPC health service. For container health checks, service
// units, and scripts that wait for a server.
#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "client/cli/options.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/rpc/connection.h"
#include "client/rpc/rpc_error.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Asks a server's health service whether it accepts requests, or with --service=live whether "
    "its engine makes progress. Exits with status 0 if the answer is SERVING.";
constexpr char kMethod[] = "/grpc.health.v1.Health/Check";
constexpr absl::Duration kBetweenTries = absl::Milliseconds(100);
// Up to here the length of the string takes one byte in a HealthCheckRequest.
constexpr size_t kMaxServiceName = 127;

// Debian's gRPC installs no generated code for grpc.health.v1, so these two encode the messages:
// HealthCheckRequest{1: service} and HealthCheckResponse{1: status} with SERVING = 1.
std::string EncodeRequest(const std::string& service) {
  if (service.empty()) return "";
  return absl::StrCat("\n", std::string(1, static_cast<char>(service.size())), service);
}
const char* DecodeStatus(const grpc::ByteBuffer& response) {
  grpc::Slice slice;
  if (!response.DumpToSingleSlice(&slice).ok() || slice.size() != 2 || slice.begin()[0] != 8) {
    return "UNKNOWN";
  }
  return slice.begin()[1] == 1 ? "SERVING" : slice.begin()[1] == 2 ? "NOT_SERVING" : "UNKNOWN";
}

grpc::Status Check(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                   absl::Duration timeout, std::string* status) {
  grpc::ClientContext context;
  SetTimeout(timeout, &context);
  const grpc::Slice slice(EncodeRequest(service));
  const grpc::ByteBuffer request(&slice, 1);
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, kMethod, request, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status result;
  call->Finish(&response, &result, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (result.ok()) *status = DecodeStatus(response);
  return result;
}

}  // namespace

int RunHealth(const Args& args, const Io& io) {
  Endpoint endpoint(kDefaultAddress);
  std::string service;
  absl::Duration timeout = absl::Seconds(3), wait;
  Options options("health", kSummary);
  endpoint.Register(&options, "the server; its public or its admin listener");
  options.Add("service", "NAME", &service, "health service: empty, live or tessera.v1.Inference");
  options.Add("wait", &wait, "ask again until the answer is SERVING, for this long");
  options.Add("timeout", &timeout, "deadline of each call; 0 is no limit");
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  const auto channel = Connect(endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  if (service.size() > kMaxServiceName) {
    return options.UsageError(absl::InvalidArgumentError("--service: at most 127 bytes"), io);
  }
  const absl::Time give_up = SteadyNow() + wait;
  while (true) {
    std::string status;
    const grpc::Status result = Check(*channel, service, timeout, &status);
    if (status == "SERVING" || SteadyNow() >= give_up) {
      if (!result.ok()) {
        *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(DecodeError(result));
        return kExitFailure;
      }
      *io.out << status << "\n";
      return status == "SERVING" ? kExitOk : kExitFailure;
    }
    absl::SleepFor(std::min(kBetweenTries, give_up - SteadyNow()));
  }
}

}  // namespace tessera::client
