// `tessera bench`: measures latency, throughput and goodput of a server under load.
#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "client/cli/json_fields.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/load/bench_config.h"
#include "client/load/bench_report.h"
#include "client/load/load_run.h"
#include "client/load/soak.h"
#include "client/load/synthetic.h"
#include "client/load/transport_comparison.h"
#include "client/rpc/connection.h"
#include "grpcpp/client_context.h"
#include "tessera/v1/tokenizer.grpc.pb.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Sends requests of made-up words and images, and reports time to first token, time between "
    "tokens, end-to-end time, throughput and goodput. A closed loop (--concurrency) measures a "
    "server with a fixed number of requests in flight. An open loop (--rate) measures what users "
    "see at a fixed rate of arrivals.\n"
    "Requests are not retried. Exits with status 1 if a request failed.\n"
    "With --compare_http it compares OpenAI's HTTP with gRPC.\n"
    "With --soak it checks whether the server leaks memory, KV pages or open files while clients "
    "cancel and read slowly.";

// Finds how many words make about `tokens` text tokens with this server's tokenizer and template.
grpc::Status CalibrateWords(const std::shared_ptr<grpc::Channel>& channel, int tokens, int* words) {
  constexpr int kFew = 1, kMany = 257;
  const auto stub = v1::Tokenizer::NewStub(channel);
  const auto count = [&](int length, int* out) {
    v1::CountTokensRequest request;
    request.add_content()->set_text(SyntheticText(length, /*seed=*/0));
    v1::CountTokensResponse response;
    grpc::ClientContext context;
    SetTimeout(absl::Seconds(30), &context);
    const grpc::Status status = stub->CountTokens(&context, request, &response);
    *out = response.tokens() - response.image_tokens();
    return status;
  };
  int few = 0, many = 0;
  grpc::Status status = count(kFew, &few);
  if (status.ok()) status = count(kMany, &many);
  if (!status.ok()) return status;
  if (many <= few) {
    return grpc::Status(grpc::StatusCode::INTERNAL,
                        "CountTokens gives a long text no more tokens than a short one");
  }
  const double per_word = static_cast<double>(many - few) / (kMany - kFew);
  *words = std::max(1, static_cast<int>(std::lround(kFew + (tokens - few) / per_word)));
  return grpc::Status::OK;
}

// Shows the first error of each code in full.
void ShowErrors(const std::vector<Measured>& results, const Io& io) {
  std::set<grpc::StatusCode> shown;
  for (const Measured& measured : results) {
    const RpcError& error = measured.call.error;
    if (error.ok() || !shown.insert(error.code).second) continue;
    *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(error);
  }
}

LoadPlan PlanOf(const BenchConfig& config) {
  LoadPlan plan;
  plan.first_index = config.warmup;
  plan.requests = config.requests;
  plan.duration = config.duration;
  plan.concurrency = config.concurrency;
  plan.rate = config.rate;
  plan.seed = config.seed;
  plan.timeout = config.timeout;
  return plan;
}

// Sends the warm-up requests. Shows errors and returns false if one failed.
bool Warm(const std::shared_ptr<grpc::Channel>& channel, const BenchConfig& config,
          const Workload& workload, const Io& io) {
  if (config.warmup == 0) return true;
  LoadPlan plan;
  plan.requests = config.warmup;
  plan.concurrency = config.open_loop() ? 1 : config.concurrency;
  plan.timeout = config.timeout;
  const auto results = RunLoad(
      channel, plan, [&](int64_t i) { return workload.Make(i); }, io.interrupt,
      [](int64_t, int64_t) {});
  ShowErrors(results, io);
  return std::all_of(results.begin(), results.end(), [](const auto& r) { return r.call.ok(); }) &&
         static_cast<int>(results.size()) == config.warmup;
}

int SoakAndReport(const std::shared_ptr<grpc::Channel>& channel,
                  const std::shared_ptr<grpc::Channel>& admin, const BenchConfig& config,
                  const SoakConfig& soak, const Workload& workload, const Io& io) {
  const auto record = RunSoak(channel, admin, config, soak, workload, io);
  if (!record.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": " << Printable(record.status().message())
            << "\n";
    return kExitFailure;
  }
  const std::vector<SoakCheck> checks =
      CheckSoak(*record, soak.max_resident_growth_mib * (1 << 20));
  if (config.json) {
    *io.out << ToLine(SoakToJson(*record, checks)) << "\n";
  } else {
    *io.out << RenderSoak(*record, checks);
  }
  const bool ok = std::all_of(checks.begin(), checks.end(), [](const auto& c) { return c.ok; });
  return ok ? kExitOk : kExitFailure;
}

int CompareAndReport(const std::shared_ptr<grpc::Channel>& channel, const BenchConfig& config,
                     const Workload& workload, const Io& io) {
  const auto comparison = CompareTransports(channel, config, workload, io);
  if (!comparison.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": "
            << Printable(comparison.status().message()) << "\n";
    return kExitFailure;
  }
  *io.out << (config.json ? ToLine(comparison->ToJson()) + "\n" : comparison->Render());
  return kExitOk;
}

}  // namespace

int RunBench(const Args& args, const Io& io) {
  BenchConfig config;
  Options options("bench", kSummary);
  config.Register(&options);
  SoakConfig soak;
  soak.Register(&options);
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  absl::Status status = soak.Finish(options, &config);
  if (status.ok()) status = config.Finish(options);
  if (!status.ok()) return options.UsageError(status, io);
  auto channel = Connect(config.endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  int words = 0;
  if (config.prompt.empty()) {
    const grpc::Status counted = CalibrateWords(*channel, config.prompt_tokens, &words);
    if (!counted.ok()) {
      *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(DecodeError(counted));
      return kExitFailure;
    }
  }
  const Workload workload(config, words);
  if (soak.on) {
    Endpoint endpoint = config.endpoint;  // the same certificates and token
    endpoint.address = soak.admin_address;
    const auto admin = Connect(endpoint);
    if (!admin.ok()) return options.UsageError(admin.status(), io);
    return SoakAndReport(*channel, *admin, config, soak, workload, io);
  }
  if (!config.compare_http.empty()) return CompareAndReport(*channel, config, workload, io);
  if (!Warm(*channel, config, workload, io)) {
    *io.err << "tessera bench: the warm-up failed\n";
    return kExitFailure;
  }
  std::vector<Measured> results;
  {
    ProgressBar bar(io);
    results = RunLoad(
        *channel, PlanOf(config), [&](int64_t i) { return workload.Make(i); }, io.interrupt,
        [&](int64_t done, int64_t failed) { bar.Update(done, config.requests, failed); });
  }
  const BenchReport report = MakeReport(results, config.slo);
  ShowErrors(results, io);
  if (config.json) {
    *io.out << ToLine(report.ToJson(config)) << "\n";
  } else {
    *io.out << report.Render(config);
  }
  return report.failed == 0 && report.good > 0 ? kExitOk : kExitFailure;
}

}  // namespace tessera::client
