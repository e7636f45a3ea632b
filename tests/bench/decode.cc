// tessera_bench decode: tokens per second of the whole engine when every sequence decodes, by batch
// and context, and the gain of a batch over a single sequence.
#include <functional>

#include "absl/strings/str_cat.h"
#include "tests/bench/engine_fixture.h"

namespace tessera::bench {
namespace {

absl::Status Run(const Flags& flags, Report& report) {
  const int steps = static_cast<int>(flags.Number("steps"));
  for (const int64_t context : flags.Numbers("context")) {
    double single = 0;
    for (const int64_t batch : flags.Numbers("batch")) {
      EngineOptions options;
      options.kv_cache_bytes = int64_t{1} << 30;
      options.max_sequences = static_cast<int>(batch);
      ASSIGN_OR_RETURN(BenchEngine bench, MakeBenchEngine(flags, options));
      std::vector<Prompt> prompts;
      for (int64_t i = 0; i < batch; ++i)
        prompts.push_back(RandomText(bench.config, static_cast<int>(context), i + 1));
      RunAll(*bench.engine, std::move(prompts), steps);
      // Counts only steps in which all sequences decode and nothing else runs.
      std::vector<double> total, forward;
      for (const StepReport& s : bench.log->steps) {
        if (s.prefill_tokens > 0 || s.decode_tokens != batch) continue;
        total.push_back(s.plan_seconds + s.batch_seconds + s.forward_seconds + s.compress_seconds +
                        s.sample_seconds);
        forward.push_back(s.forward_seconds);
      }
      if (total.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("--steps=", steps, ": at no time did all ",
                                                       batch, " sequences decode; take more"));
      }
      const double rate = static_cast<double>(batch) / Median(total);
      if (single == 0) single = rate;
      report.Row()
          .Number("context", static_cast<double>(context), 0)
          .Number("batch", static_cast<double>(batch), 0)
          .Number("step ms", 1e3 * Median(total), 2)
          .Number("forward ms", 1e3 * Median(forward), 2)
          .Number("tokens/s", rate, 0)
          .Number("x batch 1", rate / single, 2);
    }
  }
  return absl::OkStatus();
}

}  // namespace

Command DecodeCommand() {
  std::vector<Flag> flags = EngineFlags();
  flags.push_back({"batch", "1,16", "sequences; the first is the base of the ratio"});
  flags.push_back({"context", "100,600", "prompt tokens of each"});
  flags.push_back(
      {"steps", "32", "tokens to decode; more than the steps that compute the prompts"});
  return {"decode", "engine decode speed by batch and context", flags, Run};
}

}  // namespace tessera::bench
