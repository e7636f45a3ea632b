#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/dense.h"
#include "kernels/cpu/statistics.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/token_mover.h"
#include "kernels/host/host_ops.h"
#include "kernels/host/sample.h"

namespace tessera {
namespace {

// Elements per task of a row-wise op: a few microseconds of work.
constexpr int64_t kTaskElements = 16384;

class CpuOps final : public HostOps {
 public:
  CpuOps(const CpuKernels& kernels, int threads)
      : kernels_(kernels),
        pool_(threads),
        dense_(kernels, pool_),
        attention_(kernels, pool_),
        mover_(kernels, pool_),
        statistics_(kernels, pool_) {}

  const char* name() const override { return "cpu"; }

  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) override {
    return dense_.Pack(parts, cols, dtype);
  }

  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue) override {
    if (prologue.kind != Prologue::kNone) {
      if (static_cast<int64_t>(prologue_out_.size()) < rows * w.in)
        prologue_out_.resize(rows * w.in);
      ApplyPrologue(prologue, x, rows, w.in, prologue_out_.data());
      x = prologue_out_.data();
    }
    dense_.Run({.panels = w.weight.get(),
                .dtype = w.dtype,
                .in = w.in,
                .out = w.out,
                .bias = reinterpret_cast<const float*>(w.bias.get()),
                .x = x,
                .rows = rows,
                .y = y,
                .act = act,
                .residual = residual});
  }

  void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
             float* out) override {
    const auto* from = static_cast<const uint8_t*>(table);
    ForRows(rows, cols, [&](int64_t r) {
      kernels_.embed(from + ids[r] * cols * DTypeBytes(dtype), dtype, cols, out + r * cols);
    });
  }

  void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                   float* out) override {
    ForRows(rows, cols,
            [&](int64_t r) { std::memcpy(out + to_row[r] * cols, in + r * cols, cols * 4); });
  }

  void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                  float* out) override {
    ForRows(rows, cols,
            [&](int64_t r) { std::memcpy(out + r * cols, in + from_row[r] * cols, cols * 4); });
  }

  void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
               float* y) override {
    ForRows(rows, cols,
            [&](int64_t r) { kernels_.rms_norm(x + r * cols, w, cols, eps, y + r * cols); });
  }

  void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                 float eps, float* y) override {
    ForRows(rows, cols,
            [&](int64_t r) { kernels_.layer_norm(x + r * cols, w, b, cols, eps, y + r * cols); });
  }

  void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) override {
    ForRows(rows, 4 * cols, [&](int64_t r) {
      kernels_.swiglu(x + 2 * r * cols, x + (2 * r + 1) * cols, cols, y + r * cols);
    });
  }

  void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                    const SampleRule* rules, int32_t* ids) override {
    ForRows(rows, cols, [&](int64_t r) {
      ids[r] = SampleRow(logits + r * cols, cols, banned, rules == nullptr ? nullptr : rules + r);
    });
  }

  void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                const float mean[3], const float std[3], float* out) override {
    TESSERA_CHECK(patch > 0 && side % patch == 0);
    float value[3][256];  // 256 values per channel: computed once
    for (int c = 0; c < 3; ++c) {
      for (int p = 0; p < 256; ++p) value[c][p] = (p / 255.0f - mean[c]) / std[c];
    }
    const int64_t grid = side / patch, cols = 3 * patch * patch;
    ForRows(images * grid * grid, cols, [&](int64_t row) {
      const int64_t image = row / (grid * grid), py = row / grid % grid, px = row % grid;
      const uint8_t* corner = pixels + ((image * side + py * patch) * side + px * patch) * 3;
      float* to = out + row * cols;
      for (int64_t y = 0; y < patch; ++y) {
        for (int64_t x = 0; x < patch; ++x) {
          const uint8_t* pixel = corner + (y * side + x) * 3;
          for (int c = 0; c < 3; ++c) to[(c * patch + y) * patch + x] = value[c][pixel[c]];
        }
      }
    });
  }

  void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
                    float* out) override {
    attention_.Vit(qkv, images, tokens, heads, dim, out);
  }

  bool Supports(Format) const override { return true; }

  void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                    const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                    const KvLayerView& kv) override {
    const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
    const int64_t cols = (heads + 2 * kv_heads) * dim;
    const float hadamard_scale = HadamardScale(dim);
    ForRows(rows, cols, [&](int64_t r) {
      float* row = qkv + r * cols;
      const int64_t angle = positions[r] * (dim / 2);
      for (int64_t h = 0; h < heads + kv_heads; ++h) {
        kernels_.rope(row + h * dim, rope.cos + angle, rope.sin + angle, dim / 2);
      }
      if (transform && transform[r]) {
        TESSERA_CHECK(std::has_single_bit(static_cast<uint64_t>(dim)));
        for (int64_t i = 0; i < cols; i += dim) kernels_.hadamard(row + i, dim, hadamard_scale);
      }
      if (slots[r].page == kNoPage) return;
      uint8_t* page = kv.arena + slots[r].page * kPageUnitBytes;
      for (int64_t h = 0; h < 2 * kv_heads; ++h) {
        const int head = static_cast<int>(h % kv_heads);
        const int64_t offset = Raw16Offset(static_cast<int>(dim), head, h >= kv_heads,
                                           static_cast<int>(slots[r].slot));
        kernels_.store_half(row + (heads + h) * dim, dim,
                            reinterpret_cast<uint16_t*>(page + offset));
      }
    });
  }

  void PagedAttention(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                      int64_t num_sequences, int64_t heads, const KvLayerView& kv,
                      float* out) override {
    attention_.Paged(qkv, query_begin, transformed, num_sequences, heads, kv, out);
  }

  int64_t clamped_slopes() const override { return attention_.clamped_slopes(); }

  void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                  const TokenMove* moves, int64_t n) override {
    mover_.Move(arena, geometry, to, rule, moves, n);
  }

  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians) override {
    statistics_.RowPeaks(x, from_row, rows, cols, top, peaks, medians);
  }
  void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) override {
    statistics_.LowPass(arena, geometry, pages, layer_pages, segment, out_tokens, out);
  }
  void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                        int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                        float* columns) override {
    statistics_.Columns(qkv, query_begin, jobs, num_jobs, heads, kv, columns);
  }

 protected:
  void Activate(const float* x, int64_t rows, int64_t cols, Activation act, float* y) override {
    ForRows(rows, cols,
            [&](int64_t r) { kernels_.activate(x + r * cols, cols, act, y + r * cols); });
  }

 private:
  // Calls f(row) for every row; a task has several rows.
  template <class F>
  void ForRows(int64_t rows, int64_t cols, const F& f) {
    const int64_t step = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, cols));
    pool_.ParallelFor(CeilDiv(rows, step), [&](int64_t task, int) {
      for (int64_t r = task * step; r < std::min(rows, (task + 1) * step); ++r) f(r);
    });
  }

  const CpuKernels& kernels_;
  ThreadPool pool_;
  DenseRunner dense_;
  AttentionRunner attention_;
  TokenMover mover_;
  StatisticsRunner statistics_;
  std::vector<float> prologue_out_;  // a dense layer's input after its prologue
};

}  // namespace

std::unique_ptr<Ops> MakeCpuOps(const CpuKernels& kernels, int threads) {
  return std::make_unique<CpuOps>(kernels, threads);
}

}  // namespace tessera
