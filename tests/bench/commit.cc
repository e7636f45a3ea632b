// tessera_bench commit: the time that a policy's commit adds to a prompt on one GPU, from the
// prompt's 16-bit pages to the pages that the policy leaves. It follows the engine: statistics on
// the device and their copies to the host, the policy's choice and the bookkeeping of pages, and
// the moves.
//
// The forward pass is left out: K and V are random bits, and so is the residual stream whose peaks
// a policy may read. `serve` measures policies that read attention. The roofline reads K and V once
// and writes the remaining tokens once, at the memory's read rate in the same run.
#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cache/policies/registry.h"
#include "engine/runtime/compressor.h"
#include "engine/statistics/low_pass_residuals.h"
#include "engine/statistics/residual_peaks.h"
#include "tests/bench/device_cache.h"
#include "tests/bench/engine_fixture.h"

namespace tessera::bench {
namespace {

constexpr int kPictureTokens = 576;

absl::StatusOr<KvGeometry> ParseGeometry(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, 'x');
  KvGeometry g{};
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &g.layers) ||
      !absl::SimpleAtoi(parts[1], &g.kv_heads) || !absl::SimpleAtoi(parts[2], &g.head_dim) ||
      g.layers <= 0 || g.kv_heads <= 0 || (g.head_dim != 64 && g.head_dim != 128)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not LAYERSxKV_HEADSx64 or x128"));
  }
  return g;
}

// Returns a prompt of text, then as many images as fit.
Prompt MakePrompt(int tokens) {
  Prompt prompt;
  prompt.ids.assign(tokens, 7);
  prompt.image_tokens = kPictureTokens;
  for (int begin = 24; begin + kPictureTokens <= tokens; begin += kPictureTokens + 4) {
    prompt.images.push_back({begin, nullptr});
  }
  return prompt;
}

struct Times {
  double low_pass = 0;  // the device's part of `statistics`
  std::vector<double> statistics, compress;
  int64_t kept_bytes = 0;
};

// One geometry's arena on the device, and the commits in it.
class Commits {
 public:
  Commits(Device& device, const Flags& flags, const KvGeometry& geometry, int tokens)
      : device_(device),
        flags_(flags),
        ops_(device.ops()),
        hidden_(static_cast<int>(flags.Number("hidden"))),
        // In addition to the 16-bit pages, the pages of a few layers are written before the old
        // ones are free.
        cache_(2 * PageBytes(Format::kRaw16, geometry) * geometry.layers *
                       CeilDiv(tokens, PageTokens(Format::kRaw16)) +
                   (int64_t{64} << 20),
               geometry),
        arena_(cache_.arena()),
        scheduler_({tokens, 1}, &cache_),
        compressor_(&scheduler_, geometry,
                    [this](const std::vector<MoveBatch>& batches) { Move(batches); }),
        memory_(ops_.Allocate(arena_.total_bytes())),
        stream_(ops_.Allocate(int64_t{tokens} * hidden_ * 4)),
        sums_(ops_.Allocate(int64_t{geometry.layers} * tokens * 4 * 4)),
        staging_(&ops_, /*first_event=*/0),
        residuals_(&ops_, &staging_) {
    device.Fill(memory_.get(), DType::kF16, arena_.total_bytes() / 2, 1);
    device.Fill(stream_.get(), DType::kF32, int64_t{tokens} * hidden_, 2);
  }

  void Run(const Prompt& prompt, const Policy& policy, Times* times) {
    Sequence s(&arena_, prompt, policy, 0, 0);
    scheduler_.Add(&s);
    const SchedulerOutput plan = scheduler_.Schedule();
    TESSERA_CHECK(plan.items.size() == 1 && plan.rows == static_cast<int>(prompt.ids.size()));
    scheduler_.Advance(plan.items[0]);
    staging_.Begin();
    if (s.needs.low_pass && times->low_pass == 0) MeasureLowPass(s, times);
    Wait();
    const absl::Time start = SteadyNow();
    Measure(s);
    const absl::Time measured = SteadyNow();
    const Compressor::Result done = compressor_.Compress({&s});
    Wait();
    const absl::Time end = SteadyNow();
    TESSERA_CHECK(done.report.commits == 1 && done.preempted.empty());
    times->statistics.push_back(absl::ToDoubleSeconds(measured - start));
    times->compress.push_back(absl::ToDoubleSeconds(end - measured));
    times->kept_bytes = s.cache.bytes();
    scheduler_.Remove(&s);
  }
  double ReadRate() {
    const int64_t bytes = arena_.total_bytes() / 2;
    return static_cast<double>(bytes) /
           device_.MedianSeconds(flags_, {[&](int64_t) { device_.Read(memory_.get(), bytes); }})[0];
  }

 private:
  // Computes statistics as the engine does, but waits for each.
  void Measure(Sequence& s) {
    if (!s.needs.any()) return;
    const KvGeometry& geometry = arena_.geometry();
    const int tokens = s.commit_tokens;
    s.statistics.Begin(s.needs, {.layers = geometry.layers, .hidden = hidden_}, tokens);
    if (s.needs.low_pass) MeasureLowPass(s, nullptr);
    if (s.needs.residual_peaks == 0) return;
    auto& statistic = *s.statistics.Find<ResidualPeaks>();
    const int top = statistic.peaks_per_token();
    std::vector<int32_t> rows(tokens);
    for (int i = 0; i < tokens; ++i) rows[i] = i;
    const Buffer list = Upload(ops_, rows);
    const int64_t all = int64_t{geometry.layers} * tokens;
    const Buffer peaks = ops_.Allocate(all * top * 4), medians = ops_.Allocate(all * 4);
    auto* peak = reinterpret_cast<float*>(peaks.get());
    auto* median = s.needs.residual_medians ? reinterpret_cast<float*>(medians.get()) : nullptr;
    for (int64_t layer = 0; layer < geometry.layers; ++layer) {
      ops_.RowPeaks(reinterpret_cast<const float*>(stream_.get()),
                    reinterpret_cast<const int32_t*>(list.get()), tokens, hidden_, top,
                    peak + layer * tokens * top,
                    median == nullptr ? nullptr : median + layer * tokens);
    }
    std::vector<float> host(all * top), host_medians(all);
    ops_.CopyToHost(host.data(), peak, all * top * 4);
    if (median != nullptr) ops_.CopyToHost(host_medians.data(), median, all * 4);
    for (int64_t i = 0; i < all; ++i) {
      statistic.Set(static_cast<int>(i / tokens), static_cast<int>(i % tokens), &host[i * top],
                    median == nullptr ? nullptr : &host_medians[i]);
    }
  }
  void MeasureLowPass(Sequence& s, Times* times) {
    const KvGeometry& geometry = arena_.geometry();
    std::vector<PageId> pages;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      const std::vector<PageId>& own = s.cache.runs(layer).back().pages;
      pages.insert(pages.end(), own.begin(), own.end());
    }
    const std::vector<LowPassSegment> segments = s.needs.Segments(s.view());
    if (times == nullptr) {
      TESSERA_CHECK(residuals_.Begin(memory_.get(), geometry, pages, s.view(), segments));
      Wait();
      s.statistics.Find<LowPassResiduals>()->Set(residuals_.Take()[0]);
      return;
    }
    const PageId* list = staging_.Add(pages);
    staging_.Upload();
    for (const LowPassSegment& segment : segments) {
      const auto launch = [&](int64_t) {
        ops_.LowPassResiduals(memory_.get(), geometry, list,
                              static_cast<int64_t>(pages.size()) / geometry.layers, segment,
                              s.commit_tokens, reinterpret_cast<float*>(sums_.get()));
      };
      times->low_pass += device_.MedianSeconds(flags_, {launch})[0];
    }
  }
  // Moves tokens as LlavaModel::MoveTokens does.
  void Move(const std::vector<MoveBatch>& batches) {
    for (const MoveBatch& batch : batches) {
      const TokenMove* moves = staging_.Add(batch.moves);
      staging_.Upload();
      ops_.MoveTokens(memory_.get(), arena_.geometry(), batch.to, batch.rule, moves,
                      static_cast<int64_t>(batch.moves.size()));
    }
  }
  void Wait() {
    float nothing = 0;
    ops_.CopyToHost(&nothing, sums_.get(), 4);
  }

  Device& device_;
  const Flags& flags_;
  Ops& ops_;
  int hidden_;
  KvCacheManager cache_;
  Arena& arena_;
  Scheduler scheduler_;
  Compressor compressor_;
  Buffer memory_, stream_, sums_;
  Staging staging_;
  LowPassMeasurement residuals_;
};

absl::Status Run(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device,
                   Device::Open(flags.Text("precise") != "0"));
  const std::vector<int64_t> contexts = flags.Numbers("context");
  for (const absl::string_view shape : absl::StrSplit(flags.Text("shape"), ',')) {
    ASSIGN_OR_RETURN(const KvGeometry geometry, ParseGeometry(shape));
    const auto most = static_cast<int>(*std::max_element(contexts.begin(), contexts.end()));
    Commits commits(*device, flags, geometry, most);
    const double rate = commits.ReadRate();
    for (const absl::string_view text : absl::StrSplit(flags.Text("policies"), ';')) {
      ASSIGN_OR_RETURN(const std::shared_ptr<const Policy> policy, ParsePolicy(text));
      if (!policy->compresses() || policy->needs().attention_rows > 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", text, "' has no commit, or one that needs the forward pass"));
      }
      for (const int64_t context : contexts) {
        const Prompt prompt = MakePrompt(static_cast<int>(context));
        Times times;
        for (int64_t round = -1; round < flags.Number("rounds"); ++round) {
          if (round == 0) times = {};  // by now plans of products and memory exist
          commits.Run(prompt, *policy, &times);
        }
        const double statistics = Median(times.statistics), compress = Median(times.compress);
        const double before = static_cast<double>(context) * geometry.layers * geometry.kv_heads *
                              geometry.head_dim * 4;
        const double ideal = (before + static_cast<double>(times.kept_bytes)) / rate;
        report.Row()
            .Text("shape", shape)
            .Text("policy", text)
            .Number("context", static_cast<double>(context), 0)
            .Number("low_pass_ms", times.low_pass * 1e3, 2)
            .Number("statistics_ms", statistics * 1e3, 2)
            .Number("choice_and_moves_ms", compress * 1e3, 2)
            .Number("total_ms", (statistics + compress) * 1e3, 2)
            .Number("of_bytes", (statistics + compress) / ideal, 1)
            .Number("kept", static_cast<double>(times.kept_bytes) / before, 3);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

Command CommitCommand() {
  return {.name = "commit",
          .help = "what a policy's commit adds to a prompt on a GPU",
          .flags = {{"shape", "32x32x128,28x4x128", "LAYERSxKV_HEADSxHEAD_DIM"},
                    {"policies", "flashcache(keep=0.2);akvq;akvq(pivots=0)", "joined by ;"},
                    {"context", "2048,4096,8192", "tokens of the prompt"},
                    {"hidden", "4096", "width of the residual stream"},
                    {"precise", "0", "1: float32 throughout (low-pass residuals as plain sums)"}},
          .run = Run};
}

}  // namespace tessera::bench
