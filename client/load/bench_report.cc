#include "client/load/bench_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "client/cli/format.h"
#include "client/rpc/usage.h"

namespace tessera::client {

const char kDefinitions[] =
    "TTFT (time to first token): due time -> first token read. The due time is the arrival in an "
    "open loop and the sending in a closed loop.\n"
    "ITL (inter-token latency): time between neighbouring tokens, over all gaps of all answers. A "
    "message of k tokens counts as k gaps of equal length.\n"
    "TPOT (time per output token): one number per answer, (last token - first message) / tokens "
    "after the first message. With one token per message this is (e2e - TTFT) / (tokens - 1).\n"
    "e2e: due time -> end of the answer.\n"
    "Latencies are of good requests; percentiles interpolate linearly between ranks. Throughput "
    "counts good requests from the first due time to the last end.\n"
    "Goodput: good requests per second that kept every limit of --slo.\n";

Latency MeasureLatency(const Measured& measured) {
  const CallResult& call = measured.call;
  Latency latency;
  latency.e2e_seconds = Seconds(call.done - measured.due);
  latency.ttft_seconds = Seconds(FirstToken(call) - measured.due);
  const CallResult::Mark* first = nullptr;
  const CallResult::Mark* previous = nullptr;
  int64_t later_tokens = 0;
  for (const CallResult::Mark& mark : call.marks) {
    if (mark.tokens <= 0) continue;  // text of tokens that were counted before
    if (previous == nullptr) {
      first = &mark;
      latency.ttft_seconds = Seconds(mark.at - measured.due);
    } else {
      const double gap = Seconds(mark.at - previous->at) / mark.tokens;
      latency.itl_seconds.insert(latency.itl_seconds.end(), mark.tokens, gap);
      later_tokens += mark.tokens;
    }
    previous = &mark;
  }
  if (later_tokens > 0) {
    latency.tpot_seconds = Seconds(previous->at - first->at) / static_cast<double>(later_tokens);
  }
  return latency;
}

namespace {

bool Within(const std::optional<double>& limit, double value) { return !limit || value <= *limit; }

bool WithinSlo(const Slo& slo, const Latency& latency) {
  return Within(slo.ttft_seconds, latency.ttft_seconds) &&
         Within(slo.tpot_seconds, latency.tpot_seconds.value_or(0)) &&
         Within(slo.e2e_seconds, latency.e2e_seconds);
}

}  // namespace

BenchReport MakeReport(const std::vector<Measured>& results, const Slo& slo) {
  BenchReport report;
  if (results.empty()) return report;
  std::vector<double> ttft, itl, tpot, e2e, lag;
  auto begin = results[0].due, end = results[0].call.done;
  int64_t delta_tokens = 0, deltas = 0;
  for (const Measured& measured : results) {
    const CallResult& call = measured.call;
    begin = std::min(begin, measured.due);
    end = std::max(end, call.done);
    lag.push_back(Seconds(call.sent - measured.due));
    if (!call.ok()) {
      ++report.failed;
      ++report.errors[CodeName(call.error.code)];
      continue;
    }
    ++report.good;
    const Latency latency = MeasureLatency(measured);
    ttft.push_back(latency.ttft_seconds);
    e2e.push_back(latency.e2e_seconds);
    if (latency.tpot_seconds) tpot.push_back(*latency.tpot_seconds);
    itl.insert(itl.end(), latency.itl_seconds.begin(), latency.itl_seconds.end());
    report.within_slo += WithinSlo(slo, latency);
    for (const CallResult::Mark& mark : call.marks) {
      delta_tokens += mark.tokens;
      deltas += mark.tokens > 0;
    }
    const v1::Usage& usage = call.finished.usage();
    report.prompt_tokens += usage.prompt_tokens();
    report.image_tokens += usage.image_tokens();
    report.cached_tokens += usage.cached_tokens();
    report.output_tokens += usage.output_tokens();
    report.preemptions += usage.preemptions();
    report.kv_bytes_mean += (usage.kv_bytes() - report.kv_bytes_mean) / report.good;
    report.kv_bits_mean += (usage.kv_mean_bits() - report.kv_bits_mean) / report.good;
  }
  report.ttft = Summarize(std::move(ttft));
  report.itl = Summarize(std::move(itl));
  report.tpot = Summarize(std::move(tpot));
  report.e2e = Summarize(std::move(e2e));
  report.send_lag = Summarize(std::move(lag));
  if (deltas > 0) report.tokens_per_delta = static_cast<double>(delta_tokens) / deltas;
  report.window_seconds = Seconds(end - begin);
  if (report.window_seconds > 0) {
    report.requests_per_second = report.good / report.window_seconds;
    report.output_tokens_per_second = report.output_tokens / report.window_seconds;
    report.prompt_tokens_per_second = report.prompt_tokens / report.window_seconds;
    report.goodput = report.within_slo / report.window_seconds;
  }
  return report;
}

std::string BenchReport::Render(const BenchConfig& config) const {
  std::string out = config.open_loop()
                        ? absl::StrFormat("open loop, %g requests/s, Poisson arrivals", config.rate)
                        : absl::StrFormat("closed loop, %d in flight", config.concurrency);
  absl::StrAppend(&out, ", seed ", config.seed, "\n");
  absl::StrAppend(&out, "requests: ", good, " good, ", failed, " failed, in ",
                  FormatSeconds(window_seconds), "\n");
  for (const auto& [code, count] : errors) absl::StrAppend(&out, "  ", code, ": ", count, "\n");
  if (good == 0) return out;
  absl::StrAppendFormat(&out,
                        "a request: %.1f prompt tokens (%.1f of images, %.1f cached), %.1f output "
                        "tokens in messages of %.2f, KV %s at %.2f bits\n\n",
                        1.0 * prompt_tokens / good, 1.0 * image_tokens / good,
                        1.0 * cached_tokens / good, 1.0 * output_tokens / good, tokens_per_delta,
                        FormatBytes(static_cast<int64_t>(kv_bytes_mean)), kv_bits_mean);
  Table table({"latency", "mean", "p50", "p90", "p95", "p99", "max", "samples"});
  const std::pair<const char*, const Summary*> rows[] = {
      {"TTFT", &ttft}, {"ITL", &itl}, {"TPOT", &tpot}, {"e2e", &e2e}, {"send lag", &send_lag}};
  for (const auto& [name, summary] : rows) {
    if (summary->count == 0) {
      table.AddRow({name, "-", "-", "-", "-", "-", "-", "0"});
      continue;
    }
    table.AddRow({name, FormatSeconds(summary->mean), FormatSeconds(summary->p50),
                  FormatSeconds(summary->p90), FormatSeconds(summary->p95),
                  FormatSeconds(summary->p99), FormatSeconds(summary->max),
                  absl::StrCat(summary->count)});
  }
  absl::StrAppend(&out, table.Render());
  absl::StrAppendFormat(&out,
                        "\nthroughput: %.2f requests/s, %.1f output tokens/s, %.1f prompt "
                        "tokens/s\n",
                        requests_per_second, output_tokens_per_second, prompt_tokens_per_second);
  if (preemptions > 0) absl::StrAppend(&out, "preemptions: ", preemptions, "\n");
  if (config.slo.any()) {
    absl::StrAppendFormat(&out, "goodput: %.2f requests/s (%d of %d within the limits)\n", goodput,
                          within_slo, good + failed);
  }
  absl::StrAppend(&out, "\n", kDefinitions);
  return out;
}

nlohmann::ordered_json BenchReport::ToJson(const BenchConfig& config) const {
  nlohmann::ordered_json json;
  json["mode"] = config.open_loop() ? "open" : "closed";
  if (config.open_loop()) {
    json["rate"] = config.rate;
  } else {
    json["concurrency"] = config.concurrency;
  }
  json["seed"] = config.seed;
  json["good"] = good;
  json["failed"] = failed;
  json["errors"] = errors;
  json["window_seconds"] = window_seconds;
  json["ttft_seconds"] = client::ToJson(ttft);
  json["itl_seconds"] = client::ToJson(itl);
  json["tpot_seconds"] = client::ToJson(tpot);
  json["e2e_seconds"] = client::ToJson(e2e);
  json["send_lag_seconds"] = client::ToJson(send_lag);
  json["prompt_tokens"] = prompt_tokens;
  json["image_tokens"] = image_tokens;
  json["cached_tokens"] = cached_tokens;
  json["output_tokens"] = output_tokens;
  json["tokens_per_message"] = tokens_per_delta;
  json["kv_bytes_mean"] = kv_bytes_mean;
  json["kv_bits_mean"] = kv_bits_mean;
  json["preemptions"] = preemptions;
  json["requests_per_second"] = requests_per_second;
  json["output_tokens_per_second"] = output_tokens_per_second;
  json["prompt_tokens_per_second"] = prompt_tokens_per_second;
  if (config.slo.any()) {
    json["within_slo"] = within_slo;
    json["goodput_requests_per_second"] = goodput;
  }
  json["definitions"] = kDefinitions;
  return json;
}

}  // namespace tessera::client
