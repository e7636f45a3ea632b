// The base of the backends in host memory (cpu, reference): memory, events, and operations that
// need no instruction set. Every call is complete when it returns.
#pragma once

#include <chrono>

#include "kernels/ops.h"

namespace tessera {

class HostOps : public Ops {
 public:
  Buffer Allocate(int64_t bytes) override;
  void CopyToDevice(void* dst, const void* src, int64_t bytes) override;
  void CopyToHost(void* dst, const void* src, int64_t bytes) override;
  Buffer AllocateStaging(int64_t bytes) override;
  void BeginCopyToHost(void* dst, const void* src, int64_t bytes) override;
  void RecordEvent(int event) override { events_[event] = Clock::now(); }
  double SecondsBetween(int from, int to) const override;
  void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                  const LogitBias* biases, const TokenCount* counts,
                  const int32_t* sampled) override;
  void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) override;
  void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n, int64_t width,
                const int32_t* ids, LogprobAt* out) override;
  void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
                  int32_t* ranks, double* sums) override;

 protected:
  // Computes y[rows, cols] = act(x).
  virtual void Activate(const float* x, int64_t rows, int64_t cols, Activation act, float* y) = 0;
  // Computes out[rows, in], the prologue's values of x, with this backend's operations.
  void ApplyPrologue(const Prologue& prologue, const float* x, int64_t rows, int64_t in,
                     float* out);

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point events_[kEvents];
};

}  // namespace tessera
