#include "kernels/cpu/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>

#include "kernels/host/host_memory.h"

namespace tessera {
namespace {

constexpr int kPageTokens = PageTokens(Format::kRaw16);
constexpr int64_t kGroup = 2 * kLanes;  // channels per convolution
constexpr int64_t kColumnRows = 8;      // query rows whose weights are held at once
constexpr int64_t kColumnTokens = 256;  // tokens per task

using Complex = std::complex<double>;

// Transforms in place from natural to bit-reversed order, the order that CpuKernels::convolve uses.
void Transform(Complex* z, int64_t n, const std::vector<Complex>& twiddles) {
  if (n == 1) return;
  const int64_t half = n / 2;
  for (int64_t j = 0; j < half; ++j) {
    const Complex a = z[j], b = z[j + half];
    z[j] = a + b;
    z[j + half] = (a - b) * twiddles[half + j];
  }
  Transform(z, half, twiddles);
  Transform(z + half, half, twiddles);
}

// The arguments with which CpuKernels::convolve keeps the first `kept` coefficients of `tokens`.
struct LowPassPlan {
  int64_t size;
  std::vector<float> twiddles, spectrum;

  LowPassPlan(int64_t tokens, int64_t kept)
      : size(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(3 * tokens - 1)))) {
    std::vector<Complex> w(size), kernel(size);
    for (int64_t half = 1; half < size; half *= 2) {
      for (int64_t j = 0; j < half; ++j) {
        w[half + j] = std::polar(1.0, -M_PI * static_cast<double>(j) / static_cast<double>(half));
      }
    }
    const double period = 2.0 * static_cast<double>(tokens);
    for (int64_t d = 1 - tokens; d < 2 * tokens; ++d) {
      const double angle = M_PI * static_cast<double>(d) / period;
      const double sum =
          d == 0 ? static_cast<double>(2 * kept - 1)
                 : std::sin(static_cast<double>(2 * kept - 1) * angle) / std::sin(angle);
      kernel[(d + size) % size] = sum / period / static_cast<double>(size);
    }
    Transform(kernel.data(), size, w);
    for (const Complex& c : w) {
      twiddles.push_back(static_cast<float>(c.real()));
      twiddles.push_back(static_cast<float>(c.imag()));
    }
    for (const Complex& c : kernel) {
      spectrum.push_back(static_cast<float>(c.real()));
      spectrum.push_back(static_cast<float>(c.imag()));
    }
  }
};

}  // namespace

void StatisticsRunner::RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                                int64_t top, float* peaks, float* medians) {
  TESSERA_CHECK(1 <= top && top <= cols);
  pool_.ParallelFor(rows, [&](int64_t i, int) {
    const float* row = x + from_row[i] * cols;
    if (top == 1 && medians == nullptr) {
      float max = 0;
      for (int64_t c = 0; c < cols; ++c) max = std::max(max, std::fabs(row[c]));
      peaks[i] = max;
      return;
    }
    std::vector<float> sizes(cols);
    for (int64_t c = 0; c < cols; ++c) sizes[c] = std::fabs(row[c]);
    std::partial_sort_copy(sizes.begin(), sizes.end(), peaks + i * top, peaks + (i + 1) * top,
                           std::greater<>());
    if (medians == nullptr) return;
    const auto middle = sizes.begin() + (cols - 1) / 2;
    std::nth_element(sizes.begin(), middle, sizes.end());
    medians[i] = *middle;
  });
}

struct StatisticsRunner::LowPassTask {
  const uint8_t* arena;
  const PageId* pages;  // the layer's
  int dim, head;
  bool value;
  int64_t channel;  // the first of up to kGroup channels
  int64_t first, tokens;
  const LowPassPlan* plan;

  // Loads token t's channels as floats, with zeros after the last.
  void Load(const CpuKernels& kernels, int64_t t, float* out) const {
    const int64_t at = first + t;
    const uint8_t* page = arena + pages[at / kPageTokens] * kPageUnitBytes;
    const int64_t offset = Raw16Offset(dim, head, value, static_cast<int>(at % kPageTokens));
    const int64_t n = std::min<int64_t>(kGroup, dim - channel);
    kernels.load_half(reinterpret_cast<const uint16_t*>(page + offset) + channel, n, out);
    std::fill(out + n, out + kGroup, 0.0f);
  }
};

// Computes sums [tokens][2]: squared distance from the base, squared norm.
void StatisticsRunner::RunTask(const LowPassTask& task, float* z, float* sums) const {
  static constexpr float kZeros[kGroup] = {};
  const int64_t n = task.tokens;
  for (int64_t t = 0; t < n; ++t) {
    float* at = z + (n + t) * kGroup;
    task.Load(kernels_, t, at);
    std::copy_n(at, kGroup, z + (n - 1 - t) * kGroup);
  }
  std::fill(z + 2 * n * kGroup, z + task.plan->size * kGroup, 0.0f);
  kernels_.convolve(z, task.plan->size, task.plan->twiddles.data(), task.plan->spectrum.data());
  alignas(64) float x[kGroup];
  for (int64_t t = 0; t < n; ++t) {
    task.Load(kernels_, t, x);
    sums[2 * t] = kernels_.squared_distance(x, z + (n + t) * kGroup, kGroup);
    sums[2 * t + 1] = kernels_.squared_distance(x, kZeros, kGroup);
  }
}

void StatisticsRunner::LowPass(const uint8_t* arena, const KvGeometry& geometry,
                               const PageId* pages, int64_t layer_pages,
                               const LowPassSegment& segment, int64_t out_tokens, float* out) {
  const int64_t first = segment.first, tokens = segment.tokens, kept = segment.kept;
  TESSERA_CHECK(1 <= kept && kept <= tokens && first + tokens <= layer_pages * kPageTokens);
  const LowPassPlan plan(tokens, kept);
  const int64_t groups = CeilDiv<int64_t>(geometry.head_dim, kGroup);
  const int64_t tasks = 2 * geometry.kv_heads * groups;  // K and V of a head are neighbours
  std::vector<Buffer> scratch;
  for (int i = 0; i < pool_.threads(); ++i) {
    scratch.push_back(AllocateHost(plan.size * kGroup * 4));
  }
  std::vector<float> sums(tasks * tokens * 2);
  out += first * 4;
  for (int layer = 0; layer < geometry.layers; ++layer, out += out_tokens * 4) {
    pool_.ParallelFor(tasks, [&](int64_t task, int worker) {
      const auto head = static_cast<int>(task / groups / 2);
      RunTask({arena, pages + layer * layer_pages, geometry.head_dim, head, task / groups % 2 == 1,
               task % groups * kGroup, first, tokens, &plan},
              reinterpret_cast<float*>(scratch[worker].get()), &sums[task * tokens * 2]);
    });
    std::fill_n(out, tokens * 4, 0.0f);
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t value = task / groups % 2;
      for (int64_t t = 0; t < tokens; ++t) {
        out[t * 4 + value] += sums[(task * tokens + t) * 2];
        out[t * 4 + 2 + value] += sums[(task * tokens + t) * 2 + 1];
      }
    }
  }
}

void StatisticsRunner::Weights(const float* q, int head, const KvLayerView& kv, int32_t sequence,
                               int64_t visible, float* out) const {
  const int dim = kv.geometry.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  int64_t done = 0;
  for (int32_t r = kv.run_begin[sequence]; r < kv.run_begin[sequence + 1]; ++r) {
    const KvRun& run = kv.runs[r];
    TESSERA_CHECK(run.format == Format::kRaw16);
    for (int32_t t = 0; t < run.tokens && done < visible; t += kPageTokens) {
      const uint8_t* page = kv.arena + kv.pages[run.first_page + t / kPageTokens] * kPageUnitBytes;
      const int64_t n =
          std::min<int64_t>({int64_t{kPageTokens}, int64_t{run.tokens - t}, visible - done});
      kernels_.scores(q, reinterpret_cast<const uint16_t*>(page + Raw16Offset(dim, head, false, 0)),
                      n, dim, scale, out + done);
      done += n;
    }
  }
  TESSERA_CHECK(done == visible);
  const float max = *std::max_element(out, out + visible);
  for (int64_t t = 0; t < visible; ++t) out[t] -= max;
  kernels_.exp(out, visible, out);
  float sum = 0;
  for (int64_t t = 0; t < visible; ++t) sum += out[t];
  for (int64_t t = 0; t < visible; ++t) out[t] /= sum;
}

void StatisticsRunner::Columns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                               int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                               float* columns) {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  TESSERA_CHECK(kv_heads > 0 && heads % kv_heads == 0);
  std::vector<float> weights;  // [kColumnRows][heads][tokens]
  for (const ColumnJob* job = jobs; job < jobs + num_jobs; ++job) {
    int64_t tokens = 0;
    for (int32_t r = kv.run_begin[job->sequence]; r < kv.run_begin[job->sequence + 1]; ++r) {
      tokens += kv.runs[r].tokens;
    }
    const int64_t end_row = query_begin[job->sequence + 1];
    TESSERA_CHECK(job->first_row >= query_begin[job->sequence] &&
                  job->first_row + job->rows <= end_row);
    weights.resize(kColumnRows * heads * tokens);
    for (int64_t begin = 0; begin < job->rows; begin += kColumnRows) {
      const int64_t rows = std::min(kColumnRows, job->rows - begin);
      const auto visible = [&](int64_t i) {
        return tokens - (end_row - 1 - (job->first_row + begin + i));
      };
      pool_.ParallelFor(rows * heads, [&](int64_t task, int) {
        const int64_t row = job->first_row + begin + task / heads, head = task % heads;
        Weights(qkv + (row * (heads + 2 * kv_heads) + head) * dim,
                static_cast<int>(head / (heads / kv_heads)), kv, job->sequence,
                visible(task / heads), &weights[task * tokens]);
      });
      float* sums = columns + job->columns;
      pool_.ParallelFor(CeilDiv(tokens, kColumnTokens), [&](int64_t block, int) {
        for (int64_t task = 0; task < rows * heads; ++task) {
          const int64_t end = std::min((block + 1) * kColumnTokens, visible(task / heads));
          const float* w = &weights[task * tokens];
          for (int64_t t = block * kColumnTokens; t < end; ++t) sums[t] += w[t];
        }
      });
    }
  }
}

}  // namespace tessera
