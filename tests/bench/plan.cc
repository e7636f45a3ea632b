// tessera_bench plan: the scheduler's own time for one step in which all sequences decode.
#include <memory>

#include "cache/policies/registry.h"
#include "engine/runtime/scheduler.h"
#include "tests/bench/engine_fixture.h"

namespace tessera::bench {
namespace {

absl::Status Run(const Flags& flags, Report& report) {
  for (const int64_t running : flags.Numbers("running")) {
    // The cache of LLaVA-1.5-7B, bookkeeping only.
    const KvGeometry geometry{32, 32, 128};
    const auto n = static_cast<int>(running);
    KvCacheManager cache(int64_t{200} << 30, geometry);
    Scheduler scheduler({2 * n + 512, n}, &cache);
    ASSIGN_OR_RETURN(const auto policy, ParsePolicy("none"));
    std::vector<Prompt> prompts(n);
    std::vector<std::unique_ptr<Sequence>> sequences;
    for (int i = 0; i < n; ++i) {
      prompts[i].ids.assign(500 + i % 16, 7);
      sequences.push_back(std::make_unique<Sequence>(&cache.arena(), prompts[i], *policy, 0, i));
      scheduler.Add(sequences.back().get());
    }
    const auto step = [&] {
      const absl::Time start = SteadyNow();
      const SchedulerOutput plan = scheduler.Schedule();
      const double seconds = absl::ToDoubleSeconds(SteadyNow() - start);
      bool decodes = static_cast<int>(plan.items.size()) == n;
      for (const auto& item : plan.items) {
        decodes &= item.count == 1;
        scheduler.Advance(item);
        if (item.sample) item.sequence->tokens.push_back(7);
      }
      return decodes ? seconds : -1.0;  // chunks still run
    };
    std::vector<double> seconds;
    while (seconds.size() < 200) {
      const double s = step();
      if (s >= 0) seconds.push_back(s);
    }
    report.Row()
        .Number("running", static_cast<double>(running), 0)
        .Number("plan us", 1e6 * Median(seconds), 1)
        .Number("us a sequence", 1e6 * Median(seconds) / static_cast<double>(running), 3);
    for (const auto& s : sequences) scheduler.Remove(s.get());
  }
  return absl::OkStatus();
}

}  // namespace

Command PlanCommand() {
  return {"plan",
          "scheduler planning time per step, all sequences decoding",
          {{"running", "16,64,256", "sequences"}},
          Run};
}

}  // namespace tessera::bench
