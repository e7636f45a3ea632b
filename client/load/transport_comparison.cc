#include "client/load/transport_comparison.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/base.h"
#include "client/cli/format.h"
#include "client/cli/terminal.h"
#include "client/load/load_run.h"
#include "client/load/openai_load.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

constexpr char kGrpcSalt[] = "transport-grpc", kHttpSalt[] = "transport-http";

// The compared quantities, in the order of the report.
struct Quantity {
  const char* name;
  const char* json;
  double TransportRound::*field;
};
constexpr Quantity kQuantities[] = {
    {"TTFT", "ttft_seconds", &TransportRound::ttft_seconds},
    {"TPOT", "tpot_seconds", &TransportRound::tpot_seconds},
    {"e2e", "e2e_seconds", &TransportRound::e2e_seconds},
    {"output tokens/s", "tokens_per_second", &TransportRound::tokens_per_second}};

constexpr char kTransportDefinitions[] =
    "The columns gRPC and HTTP show the median over rounds of each round's median call; for "
    "tokens/s, "
    "of each round's total. TTFT: sent -> first token read. TPOT: (e2e - TTFT) / (output tokens - "
    "1). HTTP/gRPC is the median over rounds of the ratio within a round; the true median lies "
    "within the bounds with 95 % confidence.\n";

double MedianOfField(const std::vector<TransportRound>& rounds, double TransportRound::*field) {
  std::vector<double> values;
  for (const TransportRound& round : rounds) values.push_back(round.*field);
  return MedianOf(std::move(values)).value;
}

// The calls of one round over one transport, in the order of the requests.
using Calls = absl::StatusOr<std::vector<TransportCall>>;

Calls OverGrpc(const std::shared_ptr<grpc::Channel>& channel, int concurrency,
               const std::vector<v1::GenerateRequest>& requests, Interrupt* interrupt) {
  LoadPlan plan;
  plan.requests = static_cast<int64_t>(requests.size());
  plan.concurrency = concurrency;
  const std::vector<Measured> results = RunLoad(
      channel, plan,
      [&](int64_t i) {
        v1::GenerateRequest request = requests[i];
        request.mutable_cache()->set_salt(kGrpcSalt);
        return request;
      },
      interrupt, [](int64_t, int64_t) {});
  if (results.size() < requests.size()) return absl::CancelledError("interrupted");
  auto begin = Clock::time_point::max();
  for (const Measured& measured : results) begin = std::min(begin, measured.call.sent);
  std::vector<TransportCall> calls(requests.size());
  for (const Measured& measured : results) {
    const CallResult& call = measured.call;
    if (!call.ok()) return absl::UnavailableError(absl::StrCat("gRPC: ", FormatError(call.error)));
    calls[call.tag] = {Seconds(FirstToken(call) - call.sent), Seconds(call.done - call.sent),
                       Seconds(call.done - begin), call.finished.usage().prompt_tokens(),
                       call.finished.usage().output_tokens()};
  }
  return calls;
}

Calls OverHttp(OpenAiLoad* load, const std::vector<v1::GenerateRequest>& requests,
               Interrupt* interrupt) {
  std::vector<std::string> bodies;
  for (v1::GenerateRequest request : requests) {
    request.mutable_cache()->set_salt(kHttpSalt);
    bodies.push_back(ToOpenAiBody(request));
  }
  const std::vector<OpenAiAnswer> answers = load->Run(bodies, interrupt);
  auto begin = Clock::time_point::max();
  for (const OpenAiAnswer& answer : answers) {
    if (!answer.error.empty()) {
      return absl::UnavailableError(absl::StrCat("HTTP: ", Printable(answer.error)));
    }
    begin = std::min(begin, answer.sent);
  }
  std::vector<TransportCall> calls;
  for (const OpenAiAnswer& answer : answers) {
    calls.push_back({Seconds(answer.first - answer.sent), Seconds(answer.done - answer.sent),
                     Seconds(answer.done - begin), answer.prompt_tokens, answer.output_tokens});
  }
  return calls;
}

// Checks that both transports did the same work.
absl::Status CheckSame(const std::vector<TransportCall>& grpc,
                       const std::vector<TransportCall>& http) {
  for (size_t i = 0; i < grpc.size(); ++i) {
    if (grpc[i].prompt_tokens == http[i].prompt_tokens &&
        grpc[i].output_tokens == http[i].output_tokens) {
      continue;
    }
    return absl::UnavailableError(absl::StrFormat(
        "a request had %d prompt and %d output tokens over gRPC, %d and %d over HTTP",
        grpc[i].prompt_tokens, grpc[i].output_tokens, http[i].prompt_tokens,
        http[i].output_tokens));
  }
  return absl::OkStatus();
}

}  // namespace

TransportRound SummarizeRound(const std::vector<TransportCall>& calls) {
  std::vector<double> ttft, tpot, e2e;
  double end = 0;
  int64_t tokens = 0;
  for (const TransportCall& call : calls) {
    ttft.push_back(call.ttft_seconds);
    e2e.push_back(call.e2e_seconds);
    if (call.output_tokens > 1) {
      tpot.push_back((call.e2e_seconds - call.ttft_seconds) / (call.output_tokens - 1));
    }
    end = std::max(end, call.end_seconds);
    tokens += call.output_tokens;
  }
  return {MedianOf(std::move(ttft)).value, tpot.empty() ? 0 : MedianOf(std::move(tpot)).value,
          MedianOf(std::move(e2e)).value, end > 0 ? static_cast<double>(tokens) / end : 0};
}

Median TransportComparison::Ratio(double TransportRound::*field) const {
  std::vector<double> ratios;
  for (size_t i = 0; i < grpc.size(); ++i) ratios.push_back(http[i].*field / grpc[i].*field);
  return MedianOf(std::move(ratios));
}

std::string TransportComparison::Render() const {
  std::string out = absl::StrFormat(
      "%d rounds of %d requests over each transport, %d in flight; a request: %.1f prompt tokens, "
      "%.1f output tokens\n\n",
      grpc.size(), requests_per_round, concurrency, prompt_tokens, output_tokens);
  Table table({"median", "gRPC", "HTTP", "HTTP/gRPC", "95 % bounds"});
  for (const Quantity& quantity : kQuantities) {
    const double over_grpc = MedianOfField(grpc, quantity.field);
    const double over_http = MedianOfField(http, quantity.field);
    if (over_grpc == 0 || over_http == 0) continue;  // answers of one token have no TPOT
    const bool rate = quantity.field == &TransportRound::tokens_per_second;
    const auto show = [rate](double v) {
      return rate ? absl::StrFormat("%.1f", v) : FormatSeconds(v);
    };
    const Median ratio = Ratio(quantity.field);
    table.AddRow({quantity.name, show(over_grpc), show(over_http),
                  absl::StrFormat("%.4f", ratio.value),
                  absl::StrFormat("%.4f to %.4f", ratio.low, ratio.high)});
  }
  absl::StrAppend(&out, table.Render(), "\n", kTransportDefinitions);
  return out;
}

nlohmann::ordered_json TransportComparison::ToJson() const {
  nlohmann::ordered_json json = {{"mode", "compare_http"},
                                 {"concurrency", concurrency},
                                 {"rounds", grpc.size()},
                                 {"requests_per_round", requests_per_round},
                                 {"prompt_tokens_mean", prompt_tokens},
                                 {"output_tokens_mean", output_tokens}};
  for (const Quantity& quantity : kQuantities) {
    const double over_grpc = MedianOfField(grpc, quantity.field);
    const double over_http = MedianOfField(http, quantity.field);
    if (over_grpc == 0 || over_http == 0) continue;
    const Median ratio = Ratio(quantity.field);
    json[quantity.json] = {{"grpc", over_grpc},
                           {"http", over_http},
                           {"ratio", ratio.value},
                           {"ratio_low", ratio.low},
                           {"ratio_high", ratio.high}};
  }
  json["definitions"] = kTransportDefinitions;
  return json;
}

absl::StatusOr<TransportComparison> CompareTransports(const std::shared_ptr<grpc::Channel>& channel,
                                                      const BenchConfig& config,
                                                      const Workload& workload, const Io& io) {
  Endpoint endpoint = config.endpoint;
  endpoint.address = config.compare_http;
  ASSIGN_OR_RETURN(const std::string token, FindToken(endpoint));
  ASSIGN_OR_RETURN(const auto load,
                   OpenAiLoad::Create(config.compare_http, token, config.concurrency));
  TransportComparison out;
  out.concurrency = config.concurrency;
  out.requests_per_round = config.requests_per_round();
  int64_t prompt_tokens = 0, output_tokens = 0;
  ProgressBar bar(io);
  // The first rounds are the warm-up.
  for (int round = -config.warmup; round < config.rounds; ++round) {
    std::vector<v1::GenerateRequest> requests;
    for (int i = 0; i < out.requests_per_round; ++i) {
      requests.push_back(
          workload.Make(int64_t{round + config.warmup} * out.requests_per_round + i));
    }
    Calls grpc, http;
    for (const bool over_grpc : {round % 2 == 0, round % 2 != 0}) {
      Calls& calls = over_grpc ? grpc : http;
      calls = over_grpc ? OverGrpc(channel, config.concurrency, requests, io.interrupt)
                        : OverHttp(load.get(), requests, io.interrupt);
      RETURN_IF_ERROR(calls.status());
    }
    RETURN_IF_ERROR(CheckSame(*grpc, *http));
    if (round < 0) continue;
    for (const TransportCall& call : *grpc) {
      prompt_tokens += call.prompt_tokens;
      output_tokens += call.output_tokens;
    }
    out.grpc.push_back(SummarizeRound(*grpc));
    out.http.push_back(SummarizeRound(*http));
    bar.Update(round + 1, config.rounds, 0);
  }
  const double requests = static_cast<double>(config.rounds) * out.requests_per_round;
  out.prompt_tokens = static_cast<double>(prompt_tokens) / requests;
  out.output_tokens = static_cast<double>(output_tokens) / requests;
  return out;
}

}  // namespace tessera::client
