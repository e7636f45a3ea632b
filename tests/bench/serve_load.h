// The load of tessera_bench serve: clients of an engine, and a log of the engine's steps.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "base/clock.h"
#include "engine/runtime/engine.h"

namespace tessera::bench {

class ServeLog final : public Observer {
 public:
  struct Step {
    absl::Time end;
    StepReport report;
    int running = 0, tokens = 0, preempted = 0, finished = 0;
    int64_t kv_bytes = 0;
  };

  void OnFirstToken(const Request&, double) override { ++now_.tokens; }
  void OnInterToken(double) override { ++now_.tokens; }
  void OnPreempted(const Request&) override { ++now_.preempted; }
  void OnFinished(const Request&, const Event&) override { ++now_.finished; }
  void OnStep(const StepReport& report, const EngineLoad& load) override {
    now_.end = SteadyNow();
    now_.report = report;
    now_.running = load.running;
    now_.kv_bytes = load.kv_bytes_used;
    MutexLock lock(mutex_);
    steps_.push_back(now_);
    now_ = Step();
  }

  // Returns the log so far and starts a new one.
  std::vector<Step> Take() {
    MutexLock lock(mutex_);
    return std::exchange(steps_, {});
  }

 private:
  Step now_;  // the engine's thread
  Mutex mutex_;
  std::vector<Step> steps_ TESSERA_GUARDED_BY(mutex_);
};

struct Shape {
  int images = 0, text = 0, output = 0;
};

struct Case {
  std::shared_ptr<const Policy> policy;
  int sequences = 0;
  Shape shape;
  float temperature = 0;  // above 0: also with top_p
  std::string asks;       // KnowsAsks
};

struct Span {
  absl::Time begin, end;
  absl::Duration length() const { return end - begin; }
};

// Returns whether `name` is a known request for a row of logits in addition to a token
// (Case::asks).
bool KnowsAsks(absl::string_view name);

// Runs one case and returns the measured span: --requests, --warmup and --seconds of serve.cc.
Span RunCase(Engine& engine, const Case& c, int requests, absl::Duration warmup,
             absl::Duration seconds, uint64_t seed);

}  // namespace tessera::bench
