#include "kernels/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/host/host_memory.h"
#include "kernels/host/runs.h"

namespace tessera {
namespace {

constexpr int kTokens = PageTokens(Format::kRaw16);
// A block's queries and outputs take 16 KiB, as much as the converted K and V of a page with
// 128-wide heads.
constexpr int64_t kBlockFloats = 2048;
constexpr int64_t kMaxQueries = 32;
constexpr float kMinusInfinity = -INFINITY;
// A call with fewer multiply-adds takes less time than handing it to another thread.
constexpr int64_t kSerial = int64_t{1} << 16;

int64_t BlockQueries(int64_t stride) { return std::min(kMaxQueries, kBlockFloats / stride); }

float Scale(int64_t dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

}  // namespace

float HadamardScale(int64_t n) { return static_cast<float>(1 / std::sqrt(static_cast<double>(n))); }

// A tile: 16 tokens of a run, or the rest of it.
struct AttentionRunner::Tile {
  const KvRun* run;
  const uint8_t* page;
  const uint8_t* header;  // header page of the run's segment, or null
  int slot;               // slot of the first token
  int stored;             // tokens in this tile
  const uint8_t* next;    // the run's next page, if this tile ends a page; else null
};

struct AttentionRunner::Scratch {
  float q[kBlockFloats];
  float out[kBlockFloats];
  float sum[kMaxQueries * kLanes];
  float k[kTokens * kMaxHeadDim];
  float v[kTokens * kMaxHeadDim];
  float max[kMaxQueries];
  int32_t visible[kMaxQueries];
  float low[kMaxQueries], high[kMaxQueries];    // range of the mapped logits
  float slope[kMaxQueries], base[kMaxQueries];  // of the map

  void Begin(int64_t queries, int64_t stride) {
    std::fill_n(q, queries * stride, 0.0f);
    std::fill_n(out, queries * stride, 0.0f);
    std::fill_n(sum, queries * kLanes, 0.0f);
    std::fill_n(max, queries, kMinusInfinity);
    // The padding of the rows takes part in products, so it must be zero.
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
    const LogitMap map = CheckRuns(kv, s, rows);
    for (int32_t r = kv.run_begin[s]; r < kv.run_begin[s + 1]; ++r) tokens += kv.runs[r].tokens;
    const bool transform = transformed && transformed[s];
    TESSERA_CHECK(!transform || std::has_single_bit(static_cast<uint64_t>(dim)));
    multiply_adds += 2 * rows * heads * tokens * dim;
    // The rows with most visible tokens come first, so that the longest tasks start first.
    for (int64_t q = RoundUp(rows * group, step); q > 0; q -= step) {
      const auto begin = static_cast<int32_t>(q - step);
      const auto end = static_cast<int32_t>(std::min(rows * group, q));
      for (int32_t h = 0; h < kv_heads; ++h) {
        tasks_.push_back({s, h, begin, end, tokens, transform, map});
      }
    }
  }
  ForEach(static_cast<int64_t>(tasks_.size()), multiply_adds, [&](int64_t task, Scratch& scratch) {
    PagedTask(tasks_[task], qkv, query_begin, heads, kv, out, scratch);
  });
}

void AttentionRunner::PagedTask(const Task& task, const float* qkv, const int32_t* query_begin,
                                int64_t heads, const KvLayerView& kv, float* out,
                                Scratch& scratch) {
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
  if (!task.map.identity()) MapLogits(task, kv, dim, convert, scratch, page);

  int64_t before = 0;                                                   // tokens before this tile
  const int64_t seen = task.tokens - (rows - 1 - row_of(queries - 1));  // visible to the last query
  ForTiles(task, kv, dim, [&](const Tile& tile) {
    if (before >= seen) return;
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t visible = task.tokens - (rows - 1 - row_of(i)) - before;
      scratch.visible[i] = static_cast<int32_t>(std::clamp<int64_t>(visible, 0, tile.stored));
    }
    page.next = tile.next;
    page.next_bytes = HeadBytes(tile.run->format, static_cast<int>(dim));
    const bool mapped = !tile.run->map.identity();
    page.slope = mapped ? scratch.slope : nullptr;
    page.low = mapped ? scratch.low : nullptr;
    page.base = mapped ? scratch.base : nullptr;
    LoadRows(tile, dim, task.kv_head, /*value=*/false, convert, scratch, page);
    LoadRows(tile, dim, task.kv_head, /*value=*/true, convert, scratch, page);
    kernels_.attend_page(page);
    before += tile.stored;
  });
  for (int64_t i = 0; i < queries; ++i) {
    float* to = out + ((first_row + row_of(i)) * heads + head_of(i)) * dim;
    kernels_.attend_finish(scratch.out + i * stride, scratch.sum + i * kLanes, dim, to);
    if (task.transformed) kernels_.hadamard(to, dim, HadamardScale(dim));
  }
}

template <class Body>
void AttentionRunner::ForTiles(const Task& task, const KvLayerView& kv, int64_t dim,
                               const Body& body) {
  const auto at = [&kv](PageId page) { return kv.arena + page * kPageUnitBytes; };
  for (int32_t r = kv.run_begin[task.sequence]; r < kv.run_begin[task.sequence + 1]; ++r) {
    const KvRun& run = kv.runs[r];
    const PageId* pages = kv.pages + run.first_page;
    const int32_t per_page = PageTokens(run.format);
    const uint8_t* header = HasHeader(run.format) ? at(run.header) : nullptr;
    for (int32_t t = 0; t < run.tokens; t += kTokens) {
      const int32_t after = t + kTokens;
      const uint8_t* next = nullptr;
      if (after < run.tokens && after % per_page == 0) {
        next = at(pages[after / per_page]) +
               CodesOffset(run.format, static_cast<int>(dim), task.kv_head, false);
      }
      body(Tile{&run, at(pages[t / per_page]), header, t % per_page,
                std::min(kTokens, run.tokens - t), next});
    }
  }
}

void AttentionRunner::MapLogits(const Task& task, const KvLayerView& kv, int64_t dim, bool convert,
                                Scratch& scratch, AttendPage& page) {
  const int queries = page.queries;
  std::fill_n(scratch.low, queries, -kMinusInfinity);
  std::fill_n(scratch.high, queries, kMinusInfinity);
  page.next = nullptr;
  ForTiles(task, kv, dim, [&](const Tile& tile) {
    if (tile.run->map.identity()) return;
    std::fill_n(scratch.visible, queries, tile.stored);  // no new row is in such a run
    LoadRows(tile, dim, task.kv_head, /*value=*/false, convert, scratch, page);
    kernels_.logit_range(page, scratch.low, scratch.high);
  });
  int64_t clamped = 0;
  for (int i = 0; i < queries; ++i) {
    const float range = scratch.high[i] - scratch.low[i];
    const float target = range - task.map.raise - task.map.lower;
    scratch.slope[i] = target > 0 ? target / range : 0;
    scratch.base[i] = scratch.low[i] + task.map.raise;
    clamped += target < 0 ? 1 : 0;
  }
  clamped_slopes_.fetch_add(clamped, std::memory_order_relaxed);
}

void AttentionRunner::LoadRows(const Tile& tile, int64_t dim, int head, bool value, bool convert,
                               Scratch& scratch, AttendPage& page) const {
  const Format format = tile.run->format;
  const int64_t stride = page.stride;
  const auto width = static_cast<int>(dim);
  const Codec& codec = CodecOf(format, value);
  const uint8_t* codes = tile.page + RowOffset(format, width, head, value, tile.slot);
  const uint16_t*& halves = value ? page.v_half : page.k_half;
  const float*& floats = value ? page.v_float : page.k_float;
  if (codec.axis == Axis::kNone && !convert) {
    halves = reinterpret_cast<const uint16_t*>(codes);
    floats = nullptr;
    return;
  }
  float* to = value ? scratch.v : scratch.k;
  halves = nullptr;
  floats = to;
  if (codec.axis == Axis::kNone) {
    for (int i = 0; i < tile.stored; ++i) {
      kernels_.load_half(reinterpret_cast<const uint16_t*>(codes) + i * dim, dim, to + i * stride);
    }
    return;
  }
  const Format of = tile.header ? Format::kHeader : format;
  const auto meta = [&](int64_t offset) {
    return reinterpret_cast<const uint16_t*>((tile.header ? tile.header : tile.page) + offset);
  };
  const int group = codec.axis == Axis::kToken ? GroupChannels(codec, width) : width;
  for (int c = 0; c < width; c += group) {
    kernels_.dequantize({.codes = codes + CodeByte(codec.bits, c),
                         .row_bytes = RowBytes(codec, width),
                         .bits = codec.bits,
                         .per_channel = codec.axis != Axis::kToken,
                         .scales = meta(ScaleOffset(of, width, head, value, tile.slot, c)),
                         .offsets = meta(OffsetOffset(of, width, head, value, tile.slot, c)),
                         .dim = std::min(group, width - c),
                         .tokens = tile.stored,
                         .out = to + c,
                         .stride = stride});
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
