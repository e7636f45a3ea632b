#include "tests/kernels/staged_ops.h"

#include <algorithm>

#include "kernels/layout/quantize.h"

namespace tessera::testing {
namespace {

// A device copy of a host array, for one call.
template <class T>
class Copy {
 public:
  Copy(Ops& ops, const T* host, int64_t n) : ops_(ops), bytes_(n * int64_t{sizeof(T)}) {
    if (host == nullptr) return;
    memory_ = ops.Allocate(bytes_);
    ops.CopyToDevice(memory_.get(), host, bytes_);
  }
  T* get() const { return reinterpret_cast<T*>(memory_.get()); }
  void Back(T* host) const { ops_.CopyToHost(host, memory_.get(), bytes_); }

 private:
  Ops& ops_;
  int64_t bytes_;
  Buffer memory_;
};

class StagedOps final : public Ops {
 public:
  StagedOps(std::unique_ptr<Ops> device, bool metadata)
      : device_(std::move(device)), d_(*device_), plan_attention_(metadata) {}

  const char* name() const override { return d_.name(); }
  int64_t FreeBytes() const override { return d_.FreeBytes(); }
  Buffer Allocate(int64_t bytes) override { return d_.Allocate(bytes); }
  void CopyToDevice(void* dst, const void* src, int64_t bytes) override {
    d_.CopyToDevice(dst, src, bytes);
  }
  void CopyToHost(void* dst, const void* src, int64_t bytes) override {
    d_.CopyToHost(dst, src, bytes);
  }
  Buffer AllocateStaging(int64_t bytes) override { return d_.AllocateStaging(bytes); }
  void BeginCopyToHost(void* dst, const void* src, int64_t bytes) override {
    d_.BeginCopyToHost(dst, src, bytes);
  }
  bool asynchronous() const override { return d_.asynchronous(); }
  void RecordEvent(int mark) override { d_.RecordEvent(mark); }
  void WaitEvent(int mark) override { d_.WaitEvent(mark); }
  double SecondsBetween(int from, int to) const override { return d_.SecondsBetween(from, to); }
  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) override {
    return d_.MakeLinear(parts, cols, dtype);
  }

  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue) override {
    const Copy in(d_, x, rows * w.in * (prologue.kind == Prologue::kSwiGlu ? 2 : 1));
    const Copy<float> out(d_, y, rows * w.out);
    const Copy other(d_, residual == y ? nullptr : residual, rows * w.out);
    const Copy weight(d_, prologue.weight, w.in), bias(d_, prologue.bias, w.in);
    d_.MatMul(w, in.get(), rows, out.get(), act, residual == y ? out.get() : other.get(),
              {prologue.kind, weight.get(), bias.get(), prologue.eps, prologue.activation});
    out.Back(y);
  }

  void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
             float* out) override {
    const int64_t entries = *std::max_element(ids, ids + rows) + 1;
    const Copy from(d_, static_cast<const uint8_t*>(table), entries * cols * DTypeBytes(dtype));
    const Copy which(d_, ids, rows);
    const Copy<float> to(d_, out, rows * cols);
    d_.Embed(from.get(), dtype, which.get(), rows, cols, to.get());
    to.Back(out);
  }
  void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                   float* out) override {
    const Copy from(d_, in, rows * cols);
    const Copy which(d_, to_row, rows);
    const Copy<float> to(d_, out, (*std::max_element(to_row, to_row + rows) + 1) * cols);
    d_.ScatterRows(from.get(), which.get(), rows, cols, to.get());
    to.Back(out);
  }
  void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                  float* out) override {
    const Copy from(d_, in, (*std::max_element(from_row, from_row + rows) + 1) * cols);
    const Copy which(d_, from_row, rows);
    const Copy<float> to(d_, out, rows * cols);
    d_.GatherRows(from.get(), which.get(), rows, cols, to.get());
    to.Back(out);
  }
  void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
               float* y) override {
    const Copy in(d_, x, rows * cols);
    const Copy weight(d_, w, cols);
    const Copy<float> out(d_, y, rows * cols);
    d_.RmsNorm(x == y ? out.get() : in.get(), weight.get(), rows, cols, eps, out.get());
    out.Back(y);
  }
  void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                 float eps, float* y) override {
    const Copy in(d_, x, rows * cols);
    const Copy weight(d_, w, cols), bias(d_, b, cols);
    const Copy<float> out(d_, y, rows * cols);
    d_.LayerNorm(x == y ? out.get() : in.get(), weight.get(), bias.get(), rows, cols, eps,
                 out.get());
    out.Back(y);
  }
  void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) override {
    const Copy in(d_, x, rows * 2 * cols);
    const Copy<float> out(d_, y, rows * cols);
    d_.SwiGlu(in.get(), rows, cols, out.get());
    out.Back(y);
  }
  void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                  const LogitBias* biases, const TokenCount* counts,
                  const int32_t* sampled) override {
    int64_t rows = 0, all_biases = 0, all_counts = 0, places = 0;
    for (const LogitEdit* e = edits; e != edits + n; ++e) {
      rows = std::max<int64_t>(rows, e->row + 1);
      all_biases = std::max<int64_t>(all_biases, e->first_bias + e->biases);
      all_counts = std::max<int64_t>(all_counts, e->first_count + e->counts);
      places = std::max<int64_t>(places, e->awaited + 1);
    }
    const Copy<float> to(d_, logits, rows * cols);
    const Copy by(d_, edits, n);
    const Copy bias(d_, biases, all_biases);
    const Copy count(d_, counts, all_counts);
    const Copy from(d_, sampled, places);
    d_.EditLogits(to.get(), cols, by.get(), n, bias.get(), count.get(), from.get());
    to.Back(logits);
  }
  void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                    const SampleRule* rules, int32_t* ids) override {
    const Copy in(d_, logits, rows * cols);
    const Copy which(d_, banned, cols);
    const Copy<int32_t> to(d_, ids, rows);
    if (rules == nullptr) {
      d_.SampleTokens(in.get(), rows, cols, which.get(), nullptr, to.get());
    } else {
      const Copy by(d_, rules, rows);
      d_.SampleTokens(in.get(), rows, cols, which.get(), by.get(), to.get());
    }
    to.Back(ids);
  }
  void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) override {
    const auto sampled_rows = -std::min<int64_t>(0, *std::min_element(ids, ids + rows));
    const Copy from(d_, sampled, sampled_rows);
    const Copy<int32_t> to(d_, ids, rows);
    d_.TakeSampled(from.get(), to.get(), rows);
    to.Back(ids);
  }
  void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n,
                int64_t places, const int32_t* ids, LogprobAt* out) override {
    int64_t sampled = 0;
    for (int64_t i = 0; i < n; ++i) sampled = std::max<int64_t>(sampled, jobs[i].sampled + 1);
    const Copy in(d_, logits, n * cols);
    const Copy by(d_, jobs, n);
    const Copy from(d_, ids, sampled);
    const Copy<LogprobAt> to(d_, out, n * places);
    d_.Logprobs(in.get(), cols, by.get(), n, places, from.get(), to.get());
    to.Back(out);
  }
  void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                const float mean[3], const float std[3], float* out) override {
    const int64_t n = images * side * side * 3;
    const Copy in(d_, pixels, n);
    const Copy<float> to(d_, out, n);
    d_.Patchify(in.get(), images, side, patch, mean, std, to.get());
    to.Back(out);
  }
  void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
                    float* out) override {
    const int64_t n = images * tokens * heads * dim;
    const Copy in(d_, qkv, 3 * n);
    const Copy<float> to(d_, out, n);
    d_.VitAttention(in.get(), images, tokens, heads, dim, to.get());
    to.Back(out);
  }

  bool Supports(Format format) const override { return d_.Supports(format); }
  void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                    const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                    const KvLayerView& kv) override {
    const int64_t half = kv.geometry.head_dim / 2;
    const int64_t angles = (*std::max_element(positions, positions + rows) + 1) * half;
    int64_t arena_bytes = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (slots[r].page != kNoPage)
        arena_bytes = std::max(arena_bytes, End(kv.geometry, Format::kRaw16, slots[r].page));
    }
    const Copy<float> in(d_, qkv, rows * (heads + 2 * kv.geometry.kv_heads) * 2 * half);
    const Copy where(d_, positions, rows);
    const Copy to(d_, slots, rows);
    const Copy which(d_, transform, rows);
    const Copy cos(d_, rope.cos, angles), sin(d_, rope.sin, angles);
    const Copy<uint8_t> arena(d_, kv.arena, arena_bytes);
    KvLayerView view = kv;
    view.arena = arena.get();
    d_.RopeAndStore(in.get(), where.get(), to.get(), which.get(), rows, heads,
                    {cos.get(), sin.get()}, view);
    in.Back(qkv);
    arena.Back(kv.arena);
  }

  void PagedAttention(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                      int64_t num_sequences, int64_t heads, const KvLayerView& kv,
                      float* out) override {
    const int64_t rows = query_begin[num_sequences], dim = kv.geometry.head_dim;
    const int32_t num_runs = kv.run_begin[num_sequences];
    int64_t num_pages = 0, arena_bytes = 0, most_rows = 0;
    uint32_t formats = 0;
    bool headers = false;
    for (int64_t s = 0; s < num_sequences; ++s) {
      most_rows = std::max<int64_t>(most_rows, query_begin[s + 1] - query_begin[s]);
    }
    for (int32_t r = 0; r < num_runs; ++r) {
      const KvRun& run = kv.runs[r];
      formats |= 1u << static_cast<int>(run.format);
      const int32_t end = run.first_page + CeilDiv(run.tokens, PageTokens(run.format));
      num_pages = std::max<int64_t>(num_pages, end);
      for (int32_t p = run.first_page; p < end; ++p) {
        arena_bytes = std::max(arena_bytes, End(kv.geometry, run.format, kv.pages[p]));
      }
      if (run.header != kNoPage) {
        headers = true;
        arena_bytes = std::max(arena_bytes, End(kv.geometry, Format::kHeader, run.header));
      }
    }
    const Copy in(d_, qkv, rows * (heads + 2 * kv.geometry.kv_heads) * dim);
    const Copy begin(d_, query_begin, num_sequences + 1);
    const Copy<uint8_t> arena(d_, kv.arena, arena_bytes);
    const Copy pages(d_, kv.pages, num_pages);
    const Copy runs(d_, kv.runs, num_runs);
    const Copy run_begin(d_, kv.run_begin, num_sequences + 1);
    const Copy which(d_, transformed, num_sequences);
    const Copy<float> to(d_, out, rows * heads * dim);
    const KvLayerView view = {arena.get(), kv.geometry, pages.get(), runs.get(), run_begin.get()};
    // Runs twice, as two layers: after the first, a kernel may start before the previous one has
    // ended. Runs once where clamped slopes are counted.
    const int calls = plan_attention_ && !headers ? 2 : 1;
    if (plan_attention_) {
      const KvLayerView layers[] = {view, view};
      d_.PlanAttention(
          {begin.get(), num_sequences, heads, layers, calls, formats, rows, most_rows});
    }
    for (int i = 0; i < calls; ++i) {
      d_.PagedAttention(in.get(), begin.get(), which.get(), num_sequences, heads, view, to.get());
    }
    to.Back(out);
  }

  int64_t clamped_slopes() const override { return d_.clamped_slopes(); }

  void MoveTokens(uint8_t* host_arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                  const TokenMove* moves, int64_t n) override {
    int64_t arena_bytes = 0;
    for (int64_t i = 0; i < n; ++i) {
      arena_bytes = std::max({arena_bytes, End(geometry, Format::kRaw16, moves[i].from.page),
                              End(geometry, to, moves[i].to.page)});
      if (moves[i].header != kNoPage) {
        arena_bytes = std::max(arena_bytes, End(geometry, Format::kHeader, moves[i].header));
      }
    }
    const Copy<uint8_t> arena(d_, host_arena, arena_bytes);
    const Copy list(d_, moves, n);
    d_.MoveTokens(arena.get(), geometry, to, rule, list.get(), n);
    arena.Back(host_arena);
  }

  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians) override {
    const Copy in(d_, x, (*std::max_element(from_row, from_row + rows) + 1) * cols);
    const Copy which(d_, from_row, rows);
    const Copy<float> largest(d_, peaks, rows * top), middle(d_, medians, rows);
    d_.RowPeaks(in.get(), which.get(), rows, cols, top, largest.get(), middle.get());
    largest.Back(peaks);
    if (medians != nullptr) middle.Back(medians);
  }
  void LowPassResiduals(const uint8_t* host_arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) override {
    const int64_t n = geometry.layers * layer_pages;
    const int64_t arena_bytes =
        *std::max_element(pages, pages + n) * kPageUnitBytes + PageBytes(Format::kRaw16, geometry);
    const Copy<uint8_t> arena(d_, host_arena, arena_bytes);
    const Copy list(d_, pages, n);
    const Copy<float> to(d_, out, geometry.layers * out_tokens * 4);
    d_.LowPassResiduals(arena.get(), geometry, list.get(), layer_pages, segment, out_tokens,
                        to.get());
    to.Back(out);
  }
  void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
                  int32_t* ranks, double* sums) override {
    const Copy in(d_, residuals, layers * tokens * 4);
    const Copy groups(d_, vision, tokens);
    const Copy<int32_t> to(d_, ranks, layers * tokens);
    const Copy<double> totals(d_, sums, layers * 8);
    d_.RankTokens(in.get(), groups.get(), layers, tokens, to.get(), totals.get());
    to.Back(ranks);
    totals.Back(sums);
  }
  void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                        int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                        float* columns) override {
    int64_t sequences = 0, sums = 0;
    for (const ColumnJob* job = jobs; job < jobs + num_jobs; ++job) {
      sequences = std::max<int64_t>(sequences, job->sequence + 1);
      int64_t tokens = 0;
      for (int32_t r = kv.run_begin[job->sequence]; r < kv.run_begin[job->sequence + 1]; ++r) {
        tokens += kv.runs[r].tokens;
      }
      sums = std::max(sums, job->columns + tokens);
    }
    const int32_t num_runs = kv.run_begin[sequences];
    int64_t num_pages = 0, arena_bytes = 0;
    for (const KvRun* run = kv.runs; run < kv.runs + num_runs; ++run) {
      num_pages = std::max<int64_t>(
          num_pages, run->first_page + CeilDiv(run->tokens, PageTokens(run->format)));
    }
    for (int64_t p = 0; p < num_pages; ++p) {
      arena_bytes = std::max(arena_bytes, End(kv.geometry, Format::kRaw16, kv.pages[p]));
    }
    const int64_t cols = (heads + 2 * kv.geometry.kv_heads) * kv.geometry.head_dim;
    const Copy in(d_, qkv, query_begin[sequences] * cols);
    const Copy begin(d_, query_begin, sequences + 1);
    const Copy work(d_, jobs, num_jobs);
    const Copy<uint8_t> arena(d_, kv.arena, arena_bytes);
    const Copy pages(d_, kv.pages, num_pages);
    const Copy runs(d_, kv.runs, num_runs);
    const Copy run_begin(d_, kv.run_begin, sequences + 1);
    const Copy<float> to(d_, columns, sums);
    d_.AttentionColumns(in.get(), begin.get(), work.get(), num_jobs, heads,
                        {arena.get(), kv.geometry, pages.get(), runs.get(), run_begin.get()},
                        to.get());
    to.Back(columns);
  }

 private:
  static int64_t End(const KvGeometry& geometry, Format format, PageId page) {
    return page * kPageUnitBytes + PageBytes(format, geometry);
  }

  std::unique_ptr<Ops> device_;
  Ops& d_;
  bool plan_attention_;
};

}  // namespace

std::unique_ptr<Ops> StageOps(std::unique_ptr<Ops> device, bool metadata) {
  return std::make_unique<StagedOps>(std::move(device), metadata);
}

}  // namespace tessera::testing
