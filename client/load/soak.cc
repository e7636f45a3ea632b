#include "client/load/soak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "client/cli/terminal.h"
#include "client/load/load_run.h"
#include "client/rpc/connection.h"
#include "client/rpc/rpc_error.h"
#include "grpcpp/client_context.h"
#include "tessera/v1/control.grpc.pb.h"

namespace tessera::client {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(30);
constexpr int kSamples = 90;
// A cancellation comes at most this many mean request times after the sending. Most hit a running
// request at any stage; the late ones race with its end.
constexpr double kCancelSpan = 1.2;

absl::Status ToStatus(absl::string_view what, const RpcError& error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", FormatError(error)));
}

class Server {
 public:
  Server(const SoakConfig& config, const std::shared_ptr<grpc::Channel>& admin)
      : config_(config), control_(v1::Control::NewStub(admin)) {}

  absl::Status Flush() {
    grpc::ClientContext context;
    SetTimeout(kCallTimeout, &context);
    v1::FlushCacheResponse response;
    const grpc::Status status = control_->FlushCache(&context, {}, &response);
    return status.ok() ? absl::OkStatus() : ToStatus("FlushCache", DecodeError(status));
  }

  absl::StatusOr<std::vector<std::string>> Policies() {
    grpc::ClientContext context;
    SetTimeout(kCallTimeout, &context);
    v1::GetModelInfoResponse model;
    const grpc::Status status = control_->GetModelInfo(&context, {}, &model);
    if (!status.ok()) return ToStatus("GetModelInfo", DecodeError(status));
    return std::vector<std::string>(model.kv_policies().begin(), model.kv_policies().end());
  }

  absl::StatusOr<SoakSample> Sample(int64_t requests) const {
    ASSIGN_OR_RETURN(const MetricsPage page, FetchMetrics(config_.metrics_address, kCallTimeout));
    return SoakSample::Of(page, requests);
  }

  // Flushes and samples until `done` accepts a sample or `settle` has passed. Returns the last
  // sample.
  template <class Done>
  absl::StatusOr<SoakSample> Settle(int64_t requests, const Done& done) {
    const absl::Time deadline = SteadyNow() + config_.settle;
    while (true) {
      RETURN_IF_ERROR(Flush());
      ASSIGN_OR_RETURN(const SoakSample sample, Sample(requests));
      if (done(sample) || SteadyNow() >= deadline) return sample;
      absl::SleepFor(absl::Milliseconds(50));
    }
  }

 private:
  const SoakConfig& config_;
  const std::unique_ptr<v1::Control::Stub> control_;
};

// Draws how each request is treated: cancelled, read slowly, or neither. Threads: one.
class Abuse {
 public:
  Abuse(const BenchConfig& bench, const SoakConfig& soak)
      : bench_(bench), soak_(soak), random_(bench.seed), start_(Clock::now()) {}

  Treatment Draw() {
    // Every request draws three numbers, so that one option does not change the other draws.
    const double cancel = Uniform(), moment = Uniform(), slow = Uniform();
    Treatment treatment;
    if (cancel < soak_.cancel_share) {
      treatment.cancel_after = absl::Seconds(moment * kCancelSpan * MeanRequestSeconds());
    }
    if (slow < soak_.slow_share) {
      treatment.read_pause = soak_.read_pause;
      ++slow_;
    }
    return treatment;
  }
  void SetDone(int64_t done) { done_ = done; }
  int64_t slow() const { return slow_; }
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  double Uniform() { return std::generate_canonical<double, 53>(random_); }
  // By Little's law, because `concurrency` requests are always in flight.
  double MeanRequestSeconds() const {
    return elapsed() * bench_.concurrency / static_cast<double>(std::max<int64_t>(1, done_));
  }

  const BenchConfig& bench_;
  const SoakConfig& soak_;
  std::mt19937_64 random_;
  const Clock::time_point start_;
  int64_t done_ = 0, slow_ = 0;
};

// Counts the results, and shows the first error of each code.
void Tally(const std::vector<Measured>& results, const Io& io, SoakRecord* record) {
  for (const Measured& measured : results) {
    if (measured.call.ok()) {
      ++record->good;
    } else if (measured.cancelled && measured.call.error.code == grpc::StatusCode::CANCELLED) {
      ++record->cancelled;
    } else if (++record->errors[CodeName(measured.call.error.code)] == 1) {
      *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(measured.call.error);
    }
  }
}

LoadPlan PlanOf(const BenchConfig& bench, int64_t first, int64_t requests) {
  LoadPlan plan;
  plan.first_index = first;
  plan.requests = requests;
  plan.concurrency = bench.concurrency;
  plan.seed = bench.seed;
  plan.timeout = bench.timeout;
  return plan;
}

// Returns a function that makes request `index`: of the policies in turn, and of every length with
// every policy. Keeps references.
MakeRequest MixRequests(const Workload& workload, const std::vector<std::string>& policies,
                        int output_tokens) {
  return [&workload, &policies, output_tokens](int64_t index) {
    v1::GenerateRequest request = workload.Make(index);
    const uint64_t turn = static_cast<uint64_t>(index);
    const std::string& policy = policies[turn % policies.size()];
    if (!policy.empty()) request.mutable_kv_policy()->set_text(policy);
    // A prime step makes the lengths of neighbours differ.
    const uint64_t round = turn / policies.size();
    request.mutable_stopping()->set_max_tokens(
        1 + static_cast<int>(round * 7919 % static_cast<uint64_t>(output_tokens)));
    return request;
  };
}

// Sends the load, and samples the server meanwhile.
absl::Status SendLoad(const std::shared_ptr<grpc::Channel>& channel, const Server& server,
                      const BenchConfig& bench, const SoakConfig& soak, int64_t first,
                      const MakeRequest& make, const Io& io, SoakRecord* record) {
  Abuse abuse(bench, soak);
  LoadPlan plan = PlanOf(bench, first, bench.requests);
  plan.treat = [&](int64_t) { return abuse.Draw(); };
  absl::Status scraped;
  std::vector<Measured> results;
  {
    ProgressBar bar(io);
    const int64_t every = std::max<int64_t>(1, bench.requests / kSamples);
    results = RunLoad(channel, plan, make, io.interrupt, [&](int64_t done, int64_t failed) {
      bar.Update(done, bench.requests, failed);
      abuse.SetDone(done);
      if (done % every != 0 || !scraped.ok()) return;
      auto sample = server.Sample(done);
      scraped = sample.status();
      if (sample.ok()) record->during.push_back(*std::move(sample));
    });
  }
  record->seconds = abuse.elapsed();
  record->slow = abuse.slow();
  record->after.requests = static_cast<int64_t>(results.size());
  Tally(results, io, record);
  return scraped;
}

}  // namespace

absl::StatusOr<SoakRecord> RunSoak(const std::shared_ptr<grpc::Channel>& channel,
                                   const std::shared_ptr<grpc::Channel>& admin,
                                   const BenchConfig& bench, const SoakConfig& soak,
                                   const Workload& workload, const Io& io) {
  Server server(soak, admin);
  std::vector<std::string> policies = {bench.kv_policy};
  if (bench.kv_policy.empty()) {
    ASSIGN_OR_RETURN(policies, server.Policies());
    if (policies.empty()) policies = {""};
  }
  const MakeRequest make = MixRequests(workload, policies, bench.output_tokens);
  // Each policy gets a warm-up request, because it may allocate memory once.
  const int64_t warmup = std::max<int64_t>(bench.warmup, static_cast<int64_t>(policies.size()));
  for (const Measured& measured :
       RunLoad(channel, PlanOf(bench, 0, warmup), make, io.interrupt, [](int64_t, int64_t) {})) {
    if (!measured.call.ok()) return ToStatus("the warm-up failed", measured.call.error);
  }
  SoakRecord record;
  const auto idle = [](const SoakSample& s) {
    return s.running == 0 && s.waiting == 0 && s.calls == 0 && s.kv_pages == 0;
  };
  ASSIGN_OR_RETURN(record.before, server.Settle(0, idle));
  RETURN_IF_ERROR(SendLoad(channel, server, bench, soak, warmup, make, io, &record));
  const auto clean = [&before = record.before](const SoakSample& s) {
    return s.running == 0 && s.waiting == 0 && s.calls == 0 && s.kv_pages == before.kv_pages &&
           s.open_files <= before.open_files;
  };
  ASSIGN_OR_RETURN(record.after, server.Settle(record.after.requests, clean));
  return record;
}

}  // namespace tessera::client
