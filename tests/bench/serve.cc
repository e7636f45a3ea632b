// tessera_bench serve: output tokens per second of the whole engine, LLaVA-1.5-7B with random
// weights (or a checkpoint), by policy, sequences and shape of the requests.
//
// There are as many clients as sequences. Each asks again when it is answered; every request has
// other images and words, so no cache helps.
// --requests=0 measures a steady state. The first requests begin as if they had been running, with
// part of their answer in the prompt, evenly spread. The measured span is --seconds long and starts
// when at most one in 50 still waits for a first token (or after --warmup).
// --requests=N measures N requests from the first submission to the last token.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cache/policies/registry.h"
#include "engine/weights/weights.h"
#include "kernels/backend/backend.h"
#include "tests/bench/engine_fixture.h"
#include "tests/bench/llava_7b.h"
#include "tests/bench/serve_load.h"

namespace tessera::bench {
namespace {

// Adds one row to the report: the steps of the span, all of them or those that only decode.
void Describe(const std::vector<ServeLog::Step>& steps, const Span& span, bool decodes_only,
              const Case& c, Report& report) {
  double seconds = 0, running = 0;
  int64_t count = 0, tokens = 0, rows = 0, prefill = 0, preempted = 0, finished = 0, peak = 0;
  StepReport sum;
  std::vector<double> gaps;
  for (size_t i = 1; i < steps.size(); ++i) {
    const ServeLog::Step& s = steps[i];
    if (steps[i - 1].end < span.begin || s.end > span.end) continue;
    peak = std::max(peak, s.kv_bytes);
    preempted += s.preempted;
    finished += s.finished;
    const StepReport& r = s.report;
    if (decodes_only && (r.prefill_tokens > 0 || r.vision_seconds > 1e-3)) continue;
    const double step = absl::ToDoubleSeconds(s.end - steps[i - 1].end);
    seconds += step;
    running += s.running * step;
    ++count;
    tokens += s.tokens;
    rows += r.prefill_tokens + r.decode_tokens;
    prefill += r.prefill_tokens;
    gaps.push_back(r.gap_seconds);
    sum.plan_seconds += r.plan_seconds;
    sum.vision_seconds += r.vision_seconds;
    sum.batch_seconds += r.batch_seconds;
    sum.forward_seconds += r.forward_seconds;
    sum.compress_seconds += r.compress_seconds;
    sum.sample_seconds += r.sample_seconds;
  }
  const double per_step = 1e3 / static_cast<double>(std::max<int64_t>(count, 1));
  const double rest = seconds - sum.plan_seconds - sum.vision_seconds - sum.batch_seconds -
                      sum.forward_seconds - sum.compress_seconds - sum.sample_seconds;
  report.Row()
      .Text("policy", c.policy->Text())
      .Text("request", absl::StrCat(c.shape.images, "x", c.shape.text, "x", c.shape.output))
      .Number("temperature", c.temperature, 1)
      .Text("asks", c.asks)
      .Text("steps", decodes_only ? "decode" : "all")
      .Number("tokens/s", seconds > 0 ? static_cast<double>(tokens) / seconds : 0, 0)
      .Number("running", seconds > 0 ? running / seconds : 0, 1)
      .Number("peak GB", static_cast<double>(peak) * 1e-9, 1)
      .Number("step ms", seconds * per_step, 2)
      .Number("plan", sum.plan_seconds * per_step, 2)
      .Number("vision", sum.vision_seconds * per_step, 2)
      .Number("batch", sum.batch_seconds * per_step, 2)
      .Number("forward", sum.forward_seconds * per_step, 2)
      .Number("compress", sum.compress_seconds * per_step, 2)
      .Number("sample", sum.sample_seconds * per_step, 2)
      .Number("rest", rest * per_step, 2)
      .Number("gap us", gaps.empty() ? 0 : 1e6 * Median(gaps), 0)
      .Number("rows", static_cast<double>(rows) * per_step * 1e-3, 0)
      .Number("prefill/s", seconds > 0 ? static_cast<double>(prefill) / seconds : 0, 0)
      .Number("steps run", static_cast<double>(count), 0)
      .Number("ended", static_cast<double>(finished), 0)
      .Number("preempted", static_cast<double>(preempted), 0);
}

absl::StatusOr<Shape> ParseShape(absl::string_view text) {
  Shape s;
  const std::vector<std::string> numbers = absl::StrSplit(text, 'x');
  if (numbers.size() != 3 || !absl::SimpleAtoi(numbers[0], &s.images) ||
      !absl::SimpleAtoi(numbers[1], &s.text) || !absl::SimpleAtoi(numbers[2], &s.output) ||
      s.images < 0 || s.text <= s.images || s.output <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not IMAGESxTEXTxOUTPUT"));
  }
  return s;
}

absl::StatusOr<std::vector<Case>> ParseCases(const Flags& flags) {
  std::vector<Case> cases;
  for (const absl::string_view text : absl::StrSplit(flags.Text("shape"), ',')) {
    ASSIGN_OR_RETURN(const Shape shape, ParseShape(text));
    for (const absl::string_view part : absl::StrSplit(flags.Text("policy"), ';')) {
      const std::pair<std::string, std::string> halves = absl::StrSplit(part, '@');
      Case c;
      c.shape = shape;
      if (!absl::SimpleAtoi(halves.second, &c.sequences) || c.sequences <= 0) {
        return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not POLICY@SEQUENCES"));
      }
      ASSIGN_OR_RETURN(c.policy, ParsePolicy(halves.first));
      for (const absl::string_view degree : absl::StrSplit(flags.Text("temperature"), ',')) {
        if (!absl::SimpleAtof(degree, &c.temperature) || !(c.temperature >= 0)) {
          return absl::InvalidArgumentError(absl::StrCat("\"", degree, "\" is no temperature"));
        }
        for (const absl::string_view asks : absl::StrSplit(flags.Text("asks"), ',')) {
          if (!KnowsAsks(asks)) {
            return absl::InvalidArgumentError(absl::StrCat("nobody asks for \"", asks, "\""));
          }
          c.asks = std::string(asks);
          cases.push_back(c);
        }
      }
    }
  }
  return cases;
}

absl::Status Run(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::vector<Case> cases, ParseCases(flags));
  int requests = 0;
  if (!absl::SimpleAtoi(flags.Text("requests"), &requests) || requests < 0) {
    return absl::InvalidArgumentError("--requests is a number");
  }
  EngineOptions options;
  options.kv_cache_bytes = flags.Number("kv_cache_bytes");
  options.prefix_cache = false;
  options.stall_timeout = absl::InfiniteDuration();
  for (const Case& c : cases) options.max_sequences = std::max(options.max_sequences, c.sequences);
  options.max_queue = options.max_sequences + 1;
  options.max_batch_tokens =
      std::max(static_cast<int>(flags.Number("batch_tokens")), options.max_sequences);

  const absl::Time start = SteadyNow();
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TensorSource> weights;
  if (const std::string& dir = flags.Text("model"); dir == "llava-1.5-7b") {
    config = Llava7b();
    tokenizer = MakeWordTokenizer(config.text.vocab);
    weights = MakeDummyWeights(config.dtype, 1);
  } else {
    ASSIGN_OR_RETURN(config, LoadModelConfig(dir));
    ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(dir));
    ASSIGN_OR_RETURN(weights, OpenSafetensors(dir));
  }
  ASSIGN_OR_RETURN(auto ops, MakeBackend(flags.Text("device"), {}));
  ASSIGN_OR_RETURN(auto model,
                   LlavaModel::Load(config, *weights, std::move(ops), options.max_batch_tokens));
  std::fprintf(stderr, "weights made and uploaded in %.1f s\n",
               absl::ToDoubleSeconds(SteadyNow() - start));
  weights.reset();
  ServeLog log;
  Engine engine(std::move(model), tokenizer, options, &log);
  const auto warmup = absl::Seconds(flags.Number("warmup"));
  const auto seconds = absl::Seconds(flags.Number("seconds"));
  for (size_t i = 0; i < cases.size(); ++i) {
    const Span span = RunCase(engine, cases[i], requests, warmup, seconds, i + 1);
    // The last step's report may not have arrived yet.
    while (engine.Load().running > 0) absl::SleepFor(absl::Milliseconds(1));
    const std::vector<ServeLog::Step> steps = log.Take();
    for (const bool decodes_only : {false, true}) {
      Describe(steps, span, decodes_only, cases[i], report);
    }
    if (requests > 0) {
      std::fprintf(stderr, "%s: %d requests in %.2f s, %.0f output tokens/s from end to end\n",
                   cases[i].policy->Text().c_str(), requests, absl::ToDoubleSeconds(span.length()),
                   requests * double(cases[i].shape.output) / absl::ToDoubleSeconds(span.length()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Command ServeCommand() {
  return {
      .name = "serve",
      .help = "output tokens per second of the whole engine by policy (milliseconds a step)",
      .flags =
          {{"model", "llava-1.5-7b", "random weights of that size, or a checkpoint's directory"},
           {"device", "cuda", "cpu, cuda or reference"},
           {"policy", "none@96;akvq@384", "POLICY@SEQUENCES, joined by ';'"},
           {"shape", "1x44x1024", "IMAGESxTEXTxOUTPUT of a request, joined by ','"},
           {"temperature", "0", "0: greedy; others with top-p 0.95; joined by ','"},
           {"asks", "token",
            "token, penalties (repetition 1.1, frequency 0.1) or logprobs (five); joined by ','"},
           {"kv_cache_bytes", "60129542144", "of the arena"},
           {"batch_tokens", "2048", "rows of one step"},
           {"requests", "0", "how many; 0: a steady state"},
           {"warmup", "60", "seconds after which a steady state is measured at the latest"},
           {"seconds", "15", "of a steady state that count"}},
      .run = Run};
}

}  // namespace tessera::bench
