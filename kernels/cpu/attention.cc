#include "kernels/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/host_memory.h"

namespace tessera {
namespace {

constexpr int kTokens = PageTokens(Format::kRaw16);
// A block's queries and outputs take 16 KiB, as much as a converted page of a 128-wide head.
constexpr int64_t kBlockFloats = 2048;
constexpr int64_t kMaxQueries = 32;
constexpr float kMinusInfinity = -INFINITY;
// Below so many multiply-adds a call takes less time than handing it to another thread.
constexpr int64_t kSerial = int64_t{1} << 16;

int64_t BlockQueries(int64_t stride) { return std::min(kMaxQueries, kBlockFloats / stride); }

float Scale(int64_t dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

}  // namespace

float HadamardScale(int64_t n) { return static_cast<float>(1 / std::sqrt(static_cast<double>(n))); }

struct AttentionRunner::Scratch {
  float q[kBlockFloats];
  float out[kBlockFloats];
  float sum[kMaxQueries * kLanes];
  float k[kTokens * kMaxHeadDim];
  float v[kTokens * kMaxHeadDim];
  float max[kMaxQueries];
  int32_t visible[kMaxQueries];

  void Begin(int64_t queries, int64_t stride) {
    std::fill_n(q, queries * stride, 0.0f);
    std::fill_n(out, queries * stride, 0.0f);
    std::fill_n(sum, queries * kLanes, 0.0f);
    std::fill_n(max, queries, kMinusInfinity);
    // The padding of the rows is multiplied, so it must be zero and not what was there before.
    std::fill_n(k, kTokens * stride, 0.0f);
    std::fill_n(v, kTokens * stride, 0.0f);
  }
  AttendPage Page(int64_t queries, int64_t stride, int64_t dim) {
    return {.k_float = k,
            .v_float = v,
            .stride = stride,
            .scale = Scale(dim),
            .queries = static_cast<int>(queries),
            .q = q,
            .visible = visible,
            .max = max,
            .sum = sum,
            .out = out};
  }
};

AttentionRunner::AttentionRunner(const CpuKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool) {
  for (int i = 0; i < pool.threads(); ++i) scratch_.push_back(AllocateHost(sizeof(Scratch)));
}

template <class Body>
void AttentionRunner::ForEach(int64_t tasks, int64_t multiply_adds, const Body& body) {
  const auto run = [&](int64_t task, int worker) {
    body(task, *reinterpret_cast<Scratch*>(scratch_[worker].get()));
  };
  if (multiply_adds < kSerial) {
    for (int64_t task = 0; task < tasks; ++task) run(task, 0);
  } else {
    pool_.ParallelFor(tasks, run);
  }
}

void AttentionRunner::Paged(const float* qkv, const int32_t* query_begin,
                            const uint8_t* transformed, int64_t num_sequences, int64_t heads,
                            const KvLayerView& kv, float* out) {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  TESSERA_CHECK(dim > 0 && dim % 8 == 0 && dim <= kMaxHeadDim);
  TESSERA_CHECK(kv_heads > 0 && heads % kv_heads == 0);
  const int64_t group = heads / kv_heads;
  const int64_t step = BlockQueries(RoundUp<int64_t>(dim, kLanes));
  int64_t multiply_adds = 0;
  tasks_.clear();
  for (int32_t s = 0; s < num_sequences; ++s) {
    const int64_t rows = query_begin[s + 1] - query_begin[s];
    if (rows == 0) continue;
    int64_t tokens = 0;
    for (int32_t r = kv.run_begin[s]; r < kv.run_begin[s + 1]; ++r) {
      TESSERA_CHECK(kv.runs[r].tokens > 0);
      tokens += kv.runs[r].tokens;
    }
    TESSERA_CHECK(tokens >= rows);
    if (rows > 1) {
      const KvRun& last = kv.runs[kv.run_begin[s + 1] - 1];
      TESSERA_CHECK(last.format == Format::kRaw16 && last.tokens >= rows);
    }
    const bool transform = transformed && transformed[s];
    TESSERA_CHECK(!transform || std::has_single_bit(static_cast<uint64_t>(dim)));
    multiply_adds += 2 * rows * heads * tokens * dim;
    for (int64_t q = RoundUp(rows * group, step); q > 0; q -= step) {  // the longest rows first
      const auto begin = static_cast<int32_t>(q - step);
      const auto end = static_cast<int32_t>(std::min(rows * group, q));
      for (int32_t h = 0; h < kv_heads; ++h) {
        tasks_.push_back({s, h, begin, end, tokens, transform});
      }
    }
  }
  ForEach(static_cast<int64_t>(tasks_.size()), multiply_adds, [&](int64_t task, Scratch& scratch) {
    PagedTask(tasks_[task], qkv, query_begin, heads, kv, out, scratch);
  });
}

void AttentionRunner::PagedTask(const Task& task, const float* qkv, const int32_t* query_begin,
                                int64_t heads, const KvLayerView& kv, float* out,
                                Scratch& scratch) const {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  const int64_t group = heads / kv_heads, stride = RoundUp<int64_t>(dim, kLanes);
  const int64_t queries = task.end - task.begin;
  const int64_t first_row = query_begin[task.sequence];
  const int64_t rows = query_begin[task.sequence + 1] - first_row;
  const auto row_of = [&](int64_t i) { return (task.begin + i) / group; };
  const auto head_of = [&](int64_t i) { return task.kv_head * group + (task.begin + i) % group; };

  scratch.Begin(queries, stride);
  for (int64_t i = 0; i < queries; ++i) {
    const float* row = qkv + (first_row + row_of(i)) * (heads + 2 * kv_heads) * dim;
    std::copy_n(row + head_of(i) * dim, dim, scratch.q + i * stride);
  }
  AttendPage page = scratch.Page(queries, stride, dim);
  const bool convert = stride != dim || queries >= kernels_.attend_converted;

  int64_t before = 0;                                                   // tokens before this page
  const int64_t seen = task.tokens - (rows - 1 - row_of(queries - 1));  // by the last query
  for (int32_t r = kv.run_begin[task.sequence]; r < kv.run_begin[task.sequence + 1]; ++r) {
    const KvRun& run = kv.runs[r];
    const int32_t per_page = PageTokens(run.format);
    page.next_bytes = HeadBytes(run.format, static_cast<int>(dim));
    for (int32_t t = 0; t < run.tokens && before < seen; t += kTokens) {
      const int64_t stored = std::min<int64_t>(kTokens, run.tokens - t);
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t visible = task.tokens - (rows - 1 - row_of(i)) - before;
        scratch.visible[i] = static_cast<int32_t>(std::clamp<int64_t>(visible, 0, stored));
      }
      const int32_t after = t + kTokens;
      page.next = after < run.tokens && after % per_page == 0
                      ? kv.arena + kv.pages[run.first_page + after / per_page] * kPageUnitBytes +
                            CodesOffset(run.format, static_cast<int>(dim), task.kv_head, false)
                      : nullptr;
      LoadPage(kv.arena + kv.pages[run.first_page + t / per_page] * kPageUnitBytes, run.format, dim,
               task.kv_head, t % per_page, stored, convert, scratch, page);
      kernels_.attend_page(page);
      before += stored;
    }
  }
  for (int64_t i = 0; i < queries; ++i) {
    float* to = out + ((first_row + row_of(i)) * heads + head_of(i)) * dim;
    kernels_.attend_finish(scratch.out + i * stride, scratch.sum + i * kLanes, dim, to);
    if (task.transformed) kernels_.hadamard(to, dim, HadamardScale(dim));
  }
}

void AttentionRunner::LoadPage(const uint8_t* base, Format format, int64_t dim, int head, int slot,
                               int64_t stored, bool convert, Scratch& scratch,
                               AttendPage& page) const {
  const int64_t stride = page.stride;
  const auto width = static_cast<int>(dim);
  const bool direct = format == Format::kRaw16 && !convert;
  page.k_float = direct ? nullptr : scratch.k;
  page.v_float = direct ? nullptr : scratch.v;
  page.k_half = page.v_half = nullptr;
  for (bool value : {false, true}) {
    const Codec& codec = CodecOf(format, value);
    const uint8_t* codes = base + RowOffset(format, width, head, value, slot);
    float* to = value ? scratch.v : scratch.k;
    if (codec.axis != Axis::kNone) {
      const auto meta = [&](int64_t offset) {
        return reinterpret_cast<const uint16_t*>(base + offset);
      };
      kernels_.dequantize({.codes = codes,
                           .row_bytes = RowBytes(codec, width),
                           .bits = codec.bits,
                           .per_channel = codec.axis == Axis::kChannel,
                           .scales = meta(ScaleOffset(format, width, head, value, slot, 0)),
                           .offsets = meta(OffsetOffset(format, width, head, value, slot, 0)),
                           .dim = dim,
                           .tokens = static_cast<int>(stored),
                           .out = to,
                           .stride = stride});
      continue;
    }
    const auto* halves = reinterpret_cast<const uint16_t*>(codes);
    if (direct) {
      (value ? page.v_half : page.k_half) = halves;
    } else if (stride == dim) {
      kernels_.load_half(halves, stored * dim, to);
    } else {
      for (int64_t i = 0; i < stored; ++i) {
        kernels_.load_half(halves + i * dim, dim, to + i * stride);
      }
    }
  }
}

void AttentionRunner::Vit(const float* qkv, int64_t images, int64_t tokens, int64_t heads,
                          int64_t dim, float* out) {
  TESSERA_CHECK(dim > 0 && dim % 8 == 0 && dim <= kMaxHeadDim);
  const int64_t step = BlockQueries(RoundUp<int64_t>(dim, kLanes));
  const int64_t blocks = CeilDiv(tokens, step);
  ForEach(images * heads * blocks, 2 * images * heads * tokens * tokens * dim,
          [&](int64_t task, Scratch& scratch) {
            const int64_t image = task / blocks / heads, begin = task % blocks * step;
            VitTask(qkv + image * tokens * 3 * heads * dim, tokens, heads, dim,
                    task / blocks % heads, begin, std::min(tokens, begin + step),
                    out + image * tokens * heads * dim, scratch);
          });
}

void AttentionRunner::VitTask(const float* qkv, int64_t tokens, int64_t heads, int64_t dim,
                              int64_t head, int64_t begin, int64_t end, float* out,
                              Scratch& scratch) const {
  const int64_t stride = RoundUp<int64_t>(dim, kLanes), queries = end - begin;
  const auto row = [&](int64_t token, int64_t part) {
    return qkv + ((token * 3 + part) * heads + head) * dim;
  };
  scratch.Begin(queries, stride);
  for (int64_t i = 0; i < queries; ++i) {
    std::copy_n(row(begin + i, 0), dim, scratch.q + i * stride);
  }
  const AttendPage page = scratch.Page(queries, stride, dim);
  for (int64_t first = 0; first < tokens; first += kTokens) {
    const int64_t stored = std::min<int64_t>(kTokens, tokens - first);
    for (int64_t i = 0; i < stored; ++i) {
      std::copy_n(row(first + i, 1), dim, scratch.k + i * stride);
      std::copy_n(row(first + i, 2), dim, scratch.v + i * stride);
    }
    std::fill_n(scratch.visible, queries, static_cast<int32_t>(stored));
    kernels_.attend_page(page);
  }
  for (int64_t i = 0; i < queries; ++i) {
    kernels_.attend_finish(scratch.out + i * stride, scratch.sum + i * kLanes, dim,
                           out + ((begin + i) * heads + head) * dim);
  }
}

}  // namespace tessera
