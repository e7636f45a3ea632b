#include "kernels/host/host_ops.h"

#include <cstring>

#include "absl/types/span.h"
#include "kernels/host/host_memory.h"
#include "kernels/host/logits.h"
#include "kernels/host/reference_statistics.h"

namespace tessera {

Buffer HostOps::Allocate(int64_t bytes) { return AllocateHost(bytes); }
Buffer HostOps::AllocateStaging(int64_t bytes) { return AllocateHost(bytes); }

void HostOps::CopyToDevice(void* dst, const void* src, int64_t bytes) {
  if (bytes > 0) std::memcpy(dst, src, bytes);  // with 0 bytes either may be null
}
void HostOps::CopyToHost(void* dst, const void* src, int64_t bytes) {
  CopyToDevice(dst, src, bytes);
}
void HostOps::BeginCopyToHost(void* dst, const void* src, int64_t bytes) {
  CopyToDevice(dst, src, bytes);
}

double HostOps::SecondsBetween(int from, int to) const {
  return std::chrono::duration<double>(events_[to] - events_[from]).count();
}

void HostOps::EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                         const LogitBias* biases, const TokenCount* counts,
                         const int32_t* sampled) {
  for (const LogitEdit& edit : absl::MakeConstSpan(edits, n)) {
    EditRow(edit, biases, counts, sampled, logits + edit.row * cols, cols);
  }
}

void HostOps::TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    if (ids[r] < 0) ids[r] = sampled[-1 - ids[r]];
  }
}

void HostOps::Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n,
                       int64_t width, const int32_t* ids, LogprobAt* out) {
  for (int64_t i = 0; i < n; ++i, logits += cols, out += width) {
    TESSERA_CHECK(jobs[i].top < width);
    LogprobsOfRow(logits, cols, ids[jobs[i].sampled], jobs[i].top, out);
  }
}

void HostOps::RankTokens(const float* residuals, const uint8_t* vision, int64_t layers,
                         int64_t tokens, int32_t* ranks, double* sums) {
  ReferenceRankTokens(residuals, vision, layers, tokens, ranks, sums);
}

void HostOps::ApplyPrologue(const Prologue& p, const float* x, int64_t rows, int64_t in,
                            float* out) {
  switch (p.kind) {
    case Prologue::kNone:
      TESSERA_CHECK(false);
    case Prologue::kRmsNorm:
      return RmsNorm(x, p.weight, rows, in, p.eps, out);
    case Prologue::kLayerNorm:
      return LayerNorm(x, p.weight, p.bias, rows, in, p.eps, out);
    case Prologue::kSwiGlu:
      return SwiGlu(x, rows, in, out);
    case Prologue::kActivation:
      return Activate(x, rows, in, p.activation, out);
  }
}

}  // namespace tessera
