// One class with every op in the order of ops.h, so that each formula is found at once: this file
// may exceed 300 lines.
#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/host/host_ops.h"
#include "kernels/host/reference_statistics.h"
#include "kernels/host/runs.h"
#include "kernels/host/sample.h"
#include "kernels/layout/quantize.h"
#include "kernels/reference/reference_cache.h"
#include "kernels/tensor.h"

namespace tessera {
namespace {

double Activated(double x, Activation act) {
  switch (act) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x * M_SQRT1_2));
    case Activation::kQuickGelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
  }
  TESSERA_CHECK(false);
}

// Computes out[0 .. dim) = sum over tokens of softmax(scores)[token] * value(token, i).
template <class Value>
void WeighValues(std::vector<double>& scores, int64_t dim, const Value& value, float* out) {
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - max);
  for (int64_t i = 0; i < dim; ++i) {
    double o = 0;
    for (size_t t = 0; t < scores.size(); ++t) o += scores[t] * value(t, i);
    out[i] = static_cast<float>(o / sum);
  }
}

struct StoredToken {
  const uint8_t* page;
  const uint8_t* header;  // or null
  Format format;
  int slot;
  bool mapped;  // its run has a LogitMap
};

// Returns the tokens of sequence s in the order of its runs.
std::vector<StoredToken> StoredTokens(const KvLayerView& kv, int64_t s) {
  const auto at = [&kv](PageId page) { return kv.arena + page * kPageUnitBytes; };
  std::vector<StoredToken> tokens;
  for (int32_t i = kv.run_begin[s]; i < kv.run_begin[s + 1]; ++i) {
    const KvRun& run = kv.runs[i];
    const int per_page = PageTokens(run.format);
    const uint8_t* header = HasHeader(run.format) ? at(run.header) : nullptr;
    for (int32_t t = 0; t < run.tokens; ++t) {
      tokens.push_back({at(kv.pages[run.first_page + t / per_page]), header, run.format,
                        t % per_page, !run.map.identity()});
    }
  }
  return tokens;
}

class ReferenceOps final : public HostOps {
 public:
  const char* name() const override { return "reference"; }

  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) override {
    TESSERA_CHECK(!parts.empty() && cols > 0);
    Linear w{.in = cols, .dtype = dtype};
    for (const LinearPart& part : parts) w.out += part.rows;
    w.weight = Allocate(w.out * cols * DTypeBytes(dtype));
    if (parts[0].bias) w.bias = Allocate(w.out * 4);
    int64_t row = 0;
    for (const LinearPart& part : parts) {
      TESSERA_CHECK((part.bias != nullptr) == (w.bias != nullptr));
      std::memcpy(w.weight.get() + row * cols * DTypeBytes(dtype), part.weight,
                  part.rows * cols * DTypeBytes(dtype));
      if (part.bias) {
        const HostTensor bias{part.bias, dtype, {part.rows}};
        auto* out = reinterpret_cast<float*>(w.bias.get()) + row;
        for (int64_t i = 0; i < part.rows; ++i) out[i] = ElementAsFloat(bias, i);
      }
      row += part.rows;
    }
    return w;
  }

  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue) override {
    std::vector<float> before;
    if (prologue.kind != Prologue::kNone) {
      before.resize(rows * w.in);
      ApplyPrologue(prologue, x, rows, w.in, before.data());
      x = before.data();
    }
    const HostTensor weight{w.weight.get(), w.dtype, {w.out, w.in}};
    const auto* bias = reinterpret_cast<const float*>(w.bias.get());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < w.out; ++o) {
        double sum = 0;
        for (int64_t k = 0; k < w.in; ++k) {
          sum += double{x[r * w.in + k]} * ElementAsFloat(weight, o * w.in + k);
        }
        if (bias) sum += bias[o];
        sum = Activated(sum, act);
        if (residual) sum += residual[r * w.out + o];
        y[r * w.out + o] = static_cast<float>(sum);
      }
    }
  }

  void Embed(const void* table, DType dtype, const int32_t* ids, int64_t rows, int64_t cols,
             float* out) override {
    const HostTensor t{table, dtype, {}};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        out[r * cols + c] = ElementAsFloat(t, ids[r] * cols + c);
      }
    }
  }

  void ScatterRows(const float* in, const int32_t* to_row, int64_t rows, int64_t cols,
                   float* out) override {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(in + i * cols, cols, out + to_row[i] * cols);
  }

  void GatherRows(const float* in, const int32_t* from_row, int64_t rows, int64_t cols,
                  float* out) override {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(in + from_row[i] * cols, cols, out + i * cols);
  }

  void RmsNorm(const float* x, const float* w, int64_t rows, int64_t cols, float eps,
               float* y) override {
    for (int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
      double squares = 0;
      for (int64_t c = 0; c < cols; ++c) squares += double{x[c]} * x[c];
      const double scale = 1 / std::sqrt(squares / cols + eps);
      for (int64_t c = 0; c < cols; ++c) y[c] = static_cast<float>(x[c] * scale * w[c]);
    }
  }

  void LayerNorm(const float* x, const float* w, const float* b, int64_t rows, int64_t cols,
                 float eps, float* y) override {
    for (int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
      double mean = 0, squares = 0;
      for (int64_t c = 0; c < cols; ++c) mean += x[c];
      mean /= cols;
      for (int64_t c = 0; c < cols; ++c) squares += (x[c] - mean) * (x[c] - mean);
      const double scale = 1 / std::sqrt(squares / cols + eps);
      for (int64_t c = 0; c < cols; ++c) {
        y[c] = static_cast<float>((x[c] - mean) * scale * w[c] + b[c]);
      }
    }
  }

  void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                    const SampleRule* rules, int32_t* ids) override {
    for (int64_t r = 0; r < rows; ++r) {
      ids[r] = SampleRow(logits + r * cols, cols, banned, rules == nullptr ? nullptr : rules + r);
    }
  }

  void SwiGlu(const float* x, int64_t rows, int64_t cols, float* y) override {
    for (int64_t r = 0; r < rows; ++r, x += 2 * cols, y += cols) {
      for (int64_t c = 0; c < cols; ++c) {
        y[c] = static_cast<float>(Activated(x[c], Activation::kSilu) * x[cols + c]);
      }
    }
  }

  void Patchify(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                const float mean[3], const float std[3], float* out) override {
    TESSERA_CHECK(patch > 0 && side % patch == 0);
    const int64_t grid = side / patch;
    for (int64_t i = 0; i < images * grid * grid; ++i) {
      const int64_t image = i / (grid * grid), py = i / grid % grid, px = i % grid;
      for (int64_t c = 0; c < 3; ++c) {
        for (int64_t y = 0; y < patch; ++y) {
          for (int64_t x = 0; x < patch; ++x) {
            const int64_t row = image * side + py * patch + y, column = px * patch + x;
            const float p = pixels[(row * side + column) * 3 + c];
            *out++ = (p / 255.0f - mean[c]) / std[c];
          }
        }
      }
    }
  }

  void VitAttention(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
                    float* out) override {
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    std::vector<double> scores(tokens);
    for (int64_t row = 0; row < images * tokens; ++row) {
      const int64_t first = row / tokens * tokens;
      for (int64_t h = 0; h < heads; ++h) {
        const auto at = [&](int64_t token, int64_t part) {
          return qkv + ((token * 3 + part) * heads + h) * dim;
        };
        for (int64_t t = 0; t < tokens; ++t) {
          double dot = 0;
          for (int64_t i = 0; i < dim; ++i) dot += double{at(row, 0)[i]} * at(first + t, 1)[i];
          scores[t] = dot * scale;
        }
        WeighValues(
            scores, dim, [&](int64_t t, int64_t i) { return at(first + t, 2)[i]; },
            out + (row * heads + h) * dim);
      }
    }
  }

  bool Supports(Format) const override { return true; }

  void RopeAndStore(float* qkv, const int32_t* positions, const KvSlot* slots,
                    const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                    const KvLayerView& kv) override {
    const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim, half = dim / 2;
    for (int64_t r = 0; r < rows; ++r) {
      float* row = qkv + r * (heads + 2 * kv_heads) * dim;
      const float* cos = rope.cos + positions[r] * half;
      const float* sin = rope.sin + positions[r] * half;
      for (int64_t h = 0; h < heads + kv_heads; ++h) {
        float* v = row + h * dim;
        for (int64_t i = 0; i < half; ++i) {
          const float a = v[i], b = v[i + half];
          v[i] = a * cos[i] - b * sin[i];
          v[i + half] = b * cos[i] + a * sin[i];
        }
      }
      if (transform && transform[r]) {
        for (int64_t h = 0; h < heads + 2 * kv_heads; ++h) ReferenceHadamard(row + h * dim, dim);
      }
      if (slots[r].page == kNoPage) continue;
      for (int64_t h = 0; h < 2 * kv_heads; ++h) {
        const int64_t head = h % kv_heads;
        const float* from = row + (heads + h) * dim;
        uint8_t* to = kv.arena + slots[r].page * kPageUnitBytes +
                      Raw16Offset(dim, head, h >= kv_heads, slots[r].slot);
        for (int64_t i = 0; i < dim; ++i) {
          const uint16_t bits = FloatToHalf(from[i]);
          std::memcpy(to + i * 2, &bits, 2);
        }
      }
    }
  }

  void PagedAttention(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                      int64_t num_sequences, int64_t heads, const KvLayerView& kv,
                      float* out) override {
    const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
    TESSERA_CHECK(heads % kv_heads == 0);
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    for (int64_t s = 0; s < num_sequences; ++s) {
      const int64_t rows = query_begin[s + 1] - query_begin[s];
      if (rows == 0) continue;
      const LogitMap map = CheckRuns(kv, s, rows);
      const std::vector<StoredToken> tokens = StoredTokens(kv, s);
      const auto element = [&](int64_t token, int64_t head, bool value, int64_t i) {
        const StoredToken& t = tokens[token];
        return PageElement(t.page, t.format, static_cast<int>(dim), static_cast<int>(head), value,
                           t.slot, static_cast<int>(i), t.header);
      };
      for (int64_t row = query_begin[s]; row < query_begin[s + 1]; ++row) {
        const int64_t visible =
            static_cast<int64_t>(tokens.size()) - (query_begin[s + 1] - 1 - row);
        TESSERA_CHECK(visible > 0);
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t kv_head = h / (heads / kv_heads);
          const float* q = qkv + (row * (heads + 2 * kv_heads) + h) * dim;
          float* to = out + (row * heads + h) * dim;
          std::vector<double> scores(visible);
          for (int64_t t = 0; t < visible; ++t) {
            for (int64_t i = 0; i < dim; ++i)
              scores[t] += double{q[i]} * element(t, kv_head, false, i);
            scores[t] *= scale;
          }
          if (!map.identity()) {
            std::vector<double*> mapped;
            for (int64_t t = 0; t < visible; ++t) {
              if (tokens[t].mapped) mapped.push_back(&scores[t]);
            }
            clamped_slopes_ += ReferenceMapLogits(map, mapped) ? 1 : 0;
          }
          WeighValues(
              scores, dim, [&](int64_t t, int64_t i) { return element(t, kv_head, true, i); }, to);
          if (transformed && transformed[s]) ReferenceHadamard(to, dim);
        }
      }
    }
  }

  int64_t clamped_slopes() const override { return clamped_slopes_; }

  void MoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                  const TokenMove* moves, int64_t n) override {
    ReferenceMoveTokens(arena, geometry, to, rule, moves, n);
  }

  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians) override {
    ReferenceRowPeaks(x, from_row, rows, cols, top, peaks, medians);
  }
  void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) override {
    ReferenceLowPassResiduals(arena, geometry, pages, layer_pages, segment, out_tokens, out);
  }
  void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                        int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                        float* columns) override {
    ReferenceAttentionColumns(qkv, query_begin, jobs, num_jobs, heads, kv, columns);
  }

 protected:
  void Activate(const float* x, int64_t rows, int64_t cols, Activation act, float* y) override {
    for (int64_t i = 0; i < rows * cols; ++i) y[i] = static_cast<float>(Activated(x[i], act));
  }

 private:
  int64_t clamped_slopes_ = 0;
};

}  // namespace

std::unique_ptr<Ops> MakeReferenceOps() { return std::make_unique<ReferenceOps>(); }

}  // namespace tessera
