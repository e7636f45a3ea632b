// tessera_bench first_token: the time from a submitted request with images to its first token, on
// an idle engine with cold caches, compared with the time of its matrix products alone.
#include <functional>

#include "absl/strings/str_cat.h"
#include "kernels/backend/backend.h"
#include "tests/bench/engine_fixture.h"

namespace tessera::bench {
namespace {

// Returns the multiply-adds of the dense layers for one prompt, times two.
double DenseFlops(const ModelConfig& c, int tokens, int images) {
  const LlamaConfig& t = c.text;
  const double q = double{1} * t.heads * t.head_dim, kv = double{1} * t.kv_heads * t.head_dim;
  const double layer = t.hidden * (q + 2 * kv) + q * t.hidden + 3.0 * t.hidden * t.intermediate;
  const ClipConfig& v = c.vision;
  const double block = 4.0 * v.hidden * v.hidden + 2.0 * v.hidden * v.intermediate;
  const double image =
      v.tokens() * (v.blocks() * block + 3.0 * v.patch * v.patch * v.hidden) +
      c.tokens_per_image() * (double{1} * v.hidden * t.hidden + double{1} * t.hidden * t.hidden);
  return 2 * (tokens * t.layers * layer + images * image + double{1} * t.hidden * t.vocab);
}

absl::Status Run(const Flags& flags, Report& report) {
  EngineOptions options;
  options.kv_cache_bytes = 512 << 20;
  ASSIGN_OR_RETURN(BenchEngine bench, MakeBenchEngine(flags, options));
  // The dense layer's own rate at a chunk's rows, in the same run.
  BackendOptions backend;
  backend.cpu_threads = static_cast<int>(flags.Number("threads"));
  ASSIGN_OR_RETURN(const auto ops, MakeBackend(flags.Text("device"), backend));
  constexpr int64_t kSide = 1024;
  const int64_t rows = options.max_batch_tokens;
  std::vector<float> weights(kSide * kSide), x(rows * kSide), y(rows * kSide);
  FastRandom(1).Fill(weights.data(), kSide * kSide);
  FastRandom(2).Fill(x.data(), rows * kSide);
  const Linear w = ops->MakeLinear({{weights.data(), nullptr, kSide}}, kSide, DType::kF32);

  for (const int64_t images : flags.Numbers("images")) {
    std::vector<Event> last;
    const auto request = [&](int64_t round) {
      last = RunAll(*bench.engine,
                    {RandomPictures(bench.config, static_cast<int>(images), 60,
                                    static_cast<uint64_t>(round + 100))},
                    1);
    };
    std::vector<double> first, vision;
    const auto timed = [&](int64_t round) {
      request(round);
      if (round < 0) return;
      first.push_back(last[0].usage.first_token_seconds);
      vision.push_back(last[0].usage.vision_seconds);
    };
    const std::vector<double> seconds =
        MedianSeconds(flags, {timed, [&](int64_t) { ops->MatMul(w, x.data(), rows, y.data()); }});
    const double rate = 2.0 * rows * kSide * kSide / seconds[1];
    const double flops =
        DenseFlops(bench.config, last[0].usage.prompt_tokens, static_cast<int>(images));
    report.Row()
        .Number("images", static_cast<double>(images), 0)
        .Number("tokens", last[0].usage.prompt_tokens, 0)
        .Number("first token ms", 1e3 * Median(first), 1)
        .Number("of it vision ms", 1e3 * Median(vision), 1)
        .Number("dense GFLOP", flops / 1e9, 1)
        .Number("GEMM GFLOP/s", rate / 1e9, 1)
        .Number("share of GEMM time", flops / rate / Median(first), 2);
  }
  return absl::OkStatus();
}

}  // namespace

Command FirstTokenCommand() {
  std::vector<Flag> flags = EngineFlags();
  flags.push_back({"images", "1,8,16", "pictures a prompt"});
  return {"first_token", "time to the first token of a question with pictures, caches cold", flags,
          Run};
}

}  // namespace tessera::bench
