#include "tests/e2e/faulty_ops.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/end_process.h"
#include "kernels/layout/quantize.h"

namespace tessera {
namespace {

class FaultyOps final : public Ops {
 public:
  FaultyOps(std::unique_ptr<Ops> inner, const Fault& fault)
      : inner_(std::move(inner)), fault_(fault), counting_(fault.from_start) {}

  const char* name() const override { return inner_->name(); }
  int64_t FreeBytes() const override { return inner_->FreeBytes(); }
  bool Supports(Format format) const override { return inner_->Supports(format); }
  int64_t clamped_slopes() const override { return inner_->clamped_slopes(); }
  void BeginGraph() override { inner_->BeginGraph(); }
  void EndGraph() override { inner_->EndGraph(); }
  void PlanAttention(const AttentionMetadata& o) override { inner_->PlanAttention(o); }

  Buffer Allocate(int64_t bytes) override {
    Meet("Allocate");
    return inner_->Allocate(bytes);
  }
  void CopyToDevice(void* dst, const void* src, int64_t bytes) override {
    Meet("CopyToDevice");
    inner_->CopyToDevice(dst, src, bytes);
  }
  void CopyToHost(void* dst, const void* src, int64_t bytes) override {
    Meet("CopyToHost");
    inner_->CopyToHost(dst, src, bytes);
  }
  Buffer AllocateStaging(int64_t bytes) override { return inner_->AllocateStaging(bytes); }
  void BeginCopyToHost(void* dst, const void* src, int64_t bytes) override {
    Meet("CopyToHost");
    inner_->BeginCopyToHost(dst, src, bytes);
  }
  bool asynchronous() const override { return inner_->asynchronous(); }
  void RecordEvent(int event) override { inner_->RecordEvent(event); }
  void WaitEvent(int event) override { inner_->WaitEvent(event); }
  double SecondsBetween(int from, int to) const override {
    return inner_->SecondsBetween(from, to);
  }
  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) override {
    Meet("MakeLinear");
    return inner_->MakeLinear(parts, cols, dtype);
  }
  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue) override {
    Meet("MatMul");
    inner_->MatMul(w, x, rows, y, act, residual, prologue);
  }
  void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
             float* out) override {
    counting_ = true;
    Meet("Embed");
    inner_->Embed(table, dtype, ids, rows, cols, out);
  }
  void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                   float* out) override {
    inner_->ScatterRows(in, to_row, rows, cols, out);
  }
  void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                  float* out) override {
    inner_->GatherRows(in, from_row, rows, cols, out);
  }
  void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
               float* y) override {
    inner_->RmsNorm(x, w, rows, cols, eps, y);
  }
  void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                 float eps, float* y) override {
    inner_->LayerNorm(x, w, b, rows, cols, eps, y);
  }
  void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) override {
    inner_->SwiGlu(x, rows, cols, y);
  }
  void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                  const LogitBias* biases, const TokenCount* counts,
                  const int32_t* sampled) override {
    inner_->EditLogits(logits, cols, edits, n, biases, counts, sampled);
  }
  void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                    const SampleRule* rules, int32_t* ids) override {
    Meet("SampleTokens");
    inner_->SampleTokens(logits, rows, cols, banned, rules, ids);
  }
  void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) override {
    inner_->TakeSampled(sampled, ids, rows);
  }
  void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n,
                int64_t places, const int32_t* ids, LogprobAt* out) override {
    inner_->Logprobs(logits, cols, jobs, n, places, ids, out);
  }
  void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                const float mean[3], const float std[3], float* out) override {
    counting_ = true;
    Meet("Patchify");
    inner_->Patchify(pixels, images, side, patch, mean, std, out);
  }
  void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
                    float* out) override {
    inner_->VitAttention(qkv, images, tokens, heads, dim, out);
  }
  void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                    const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                    const KvLayerView& kv) override {
    Meet("RopeAndStore");
    inner_->RopeAndStore(qkv, positions, slots, transform, rows, heads, rope, kv);
  }
  void PagedAttention(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                      int64_t num_sequences, int64_t heads, const KvLayerView& kv,
                      float* out) override {
    Meet("PagedAttention");
    inner_->PagedAttention(qkv, query_begin, transformed, num_sequences, heads, kv, out);
  }
  void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                  const TokenMove* moves, int64_t n) override {
    Meet("MoveTokens");
    inner_->MoveTokens(arena, geometry, to, rule, moves, n);
  }
  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians) override {
    inner_->RowPeaks(x, from_row, rows, cols, top, peaks, medians);
  }
  void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) override {
    inner_->LowPassResiduals(arena, geometry, pages, layer_pages, segment, out_tokens, out);
  }
  void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
                  int32_t* ranks, double* sums) override {
    inner_->RankTokens(residuals, vision, layers, tokens, ranks, sums);
  }
  void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                        int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                        float* columns) override {
    inner_->AttentionColumns(qkv, query_begin, jobs, num_jobs, heads, kv, columns);
  }

 private:
  void Meet(const char* op) {
    if (!counting_ || fault_.op != op || ++calls_ != fault_.call) return;
    switch (fault_.kind) {
      case Fault::kEnd:
        EndProcess(absl::StrCat("device error: ", op, ": injected"));
      case Fault::kHang:
        while (true) std::this_thread::sleep_for(std::chrono::hours(1));
      case Fault::kSlow:
        std::this_thread::sleep_for(std::chrono::seconds(1));
    }
  }

  const std::unique_ptr<Ops> inner_;
  const Fault fault_;
  bool counting_;
  int calls_ = 0;
};

}  // namespace

absl::StatusOr<Fault> ParseFault(absl::string_view text) {
  Fault fault;
  fault.from_start = absl::ConsumeSuffix(&text, "+load");
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  const auto wrong = absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not a fault"));
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &fault.call)) return wrong;
  fault.op = parts[0];
  if (parts[2] != "end" && parts[2] != "hang" && parts[2] != "slow") return wrong;
  fault.kind = parts[2] == "end" ? Fault::kEnd : parts[2] == "hang" ? Fault::kHang : Fault::kSlow;
  return fault;
}

std::unique_ptr<Ops> MakeFaulty(std::unique_ptr<Ops> inner, const Fault& fault) {
  return std::make_unique<FaultyOps>(std::move(inner), fault);
}

}  // namespace tessera
