#include "kernels/host/reference_statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/layout/quantize.h"
#include "kernels/layout/score_order.h"

namespace tessera {
namespace {

constexpr int kPageTokens = PageTokens(Format::kRaw16);

float Raw16Element(const uint8_t* arena, PageId page, int head_dim, int head, bool value,
                   int64_t slot, int channel) {
  return PageElement(arena + page * kPageUnitBytes, Format::kRaw16, head_dim, head, value,
                     static_cast<int>(slot), channel);
}

}  // namespace

void ReferenceRowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                       int64_t top, float* peaks, float* medians) {
  TESSERA_CHECK(1 <= top && top <= cols);
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<float> sizes;
    for (int64_t c = 0; c < cols; ++c) sizes.push_back(std::fabs(x[from_row[i] * cols + c]));
    std::sort(sizes.begin(), sizes.end());
    for (int64_t t = 0; t < top; ++t) peaks[i * top + t] = sizes[cols - 1 - t];
    if (medians != nullptr) medians[i] = sizes[(cols - 1) / 2];
  }
}

void ReferenceLowPassResiduals(const uint8_t* arena, const KvGeometry& geometry,
                               const PageId* pages, int64_t layer_pages,
                               const LowPassSegment& segment, int64_t out_tokens, float* out) {
  const int64_t first = segment.first, tokens = segment.tokens, kept = segment.kept;
  TESSERA_CHECK(1 <= kept && kept <= tokens && first + tokens <= layer_pages * kPageTokens);
  std::vector<double> basis(kept * tokens);  // [m][t]
  for (int64_t m = 0; m < kept; ++m) {
    const double scale = std::sqrt((m == 0 ? 1.0 : 2.0) / static_cast<double>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      basis[m * tokens + t] = scale * std::cos(M_PI * static_cast<double>(m * (2 * t + 1)) /
                                               static_cast<double>(2 * tokens));
    }
  }
  for (int layer = 0; layer < geometry.layers; ++layer) {
    std::vector<double> sums(tokens * 4);
    for (int part = 0; part < 2 * geometry.kv_heads * geometry.head_dim; ++part) {
      const int channel = part % geometry.head_dim;
      const int head = part / geometry.head_dim / 2;
      const bool value = part / geometry.head_dim % 2 == 1;
      std::vector<double> signal(tokens), base(tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t at = first + t;
        signal[t] = Raw16Element(arena, pages[layer * layer_pages + at / kPageTokens],
                                 geometry.head_dim, head, value, at % kPageTokens, channel);
      }
      for (int64_t m = 0; m < kept; ++m) {
        const double* b = &basis[m * tokens];
        double coefficient = 0;
        for (int64_t t = 0; t < tokens; ++t) coefficient += b[t] * signal[t];
        for (int64_t t = 0; t < tokens; ++t) base[t] += b[t] * coefficient;
      }
      for (int64_t t = 0; t < tokens; ++t) {
        sums[t * 4 + value] += (signal[t] - base[t]) * (signal[t] - base[t]);
        sums[t * 4 + 2 + value] += signal[t] * signal[t];
      }
    }
    float* to = out + (layer * out_tokens + first) * 4;
    for (const double sum : sums) *to++ = static_cast<float>(sum);
  }
}

void ReferenceRankTokens(const float* residuals, const uint8_t* vision, int64_t layers,
                         int64_t tokens, int32_t* ranks, double* sums) {
  std::fill_n(sums, layers * 8, 0.0);
  std::vector<std::pair<int32_t, int32_t>> order(tokens);
  for (int64_t layer = 0; layer < layers; ++layer, ranks += tokens, sums += 8) {
    for (int64_t t = 0; t < tokens; ++t, residuals += 4) {
      order[t] = {~ScoreOrder(residuals[0] + residuals[1]), static_cast<int32_t>(t)};
      for (int i = 0; i < 4; ++i) sums[(vision[t] != 0 ? 4 : 0) + i] += residuals[i];
    }
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < tokens; ++i) ranks[order[i].second] = static_cast<int32_t>(i);
  }
}

void ReferenceAttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                               int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                               float* columns) {
  const int kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  for (const ColumnJob* job = jobs; job < jobs + num_jobs; ++job) {
    std::vector<std::pair<PageId, int>> tokens;  // page and slot
    for (int32_t r = kv.run_begin[job->sequence]; r < kv.run_begin[job->sequence + 1]; ++r) {
      const KvRun& run = kv.runs[r];
      TESSERA_CHECK(run.format == Format::kRaw16);
      for (int t = 0; t < run.tokens; ++t) {
        tokens.emplace_back(kv.pages[run.first_page + t / kPageTokens], t % kPageTokens);
      }
    }
    const int32_t end_row = query_begin[job->sequence + 1];
    for (int32_t row = job->first_row; row < job->first_row + job->rows; ++row) {
      TESSERA_CHECK(row >= query_begin[job->sequence] && row < end_row);
      const int64_t visible = static_cast<int64_t>(tokens.size()) - (end_row - 1 - row);
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = qkv + (row * (heads + 2 * kv_heads) + h) * dim;
        const auto head = static_cast<int>(h / (heads / kv_heads));
        std::vector<double> scores(visible);
        for (int64_t t = 0; t < visible; ++t) {
          for (int i = 0; i < dim; ++i) {
            scores[t] += double{q[i]} * Raw16Element(kv.arena, tokens[t].first, dim, head, false,
                                                     tokens[t].second, i);
          }
          scores[t] /= std::sqrt(static_cast<double>(dim));
        }
        const double max = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& s : scores) sum += s = std::exp(s - max);
        for (int64_t t = 0; t < visible; ++t) {
          columns[job->columns + t] += static_cast<float>(scores[t] / sum);
        }
      }
    }
  }
}

}  // namespace tessera
