#include "tests/kernels/mixed_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/host/host_memory.h"

namespace tessera::testing {

MixedCache::MixedCache(Ops& ops, const MixedCase& shape, const QuantRule& rule, int pool,
                       uint64_t shuffle, uint64_t values)
    : shape_(shape),
      geometry_{.layers = 1, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim} {
  std::vector<Format> formats;  // formats of all pages: the runs', then the pool's
  run_begin_.push_back(0);
  for (const auto& sequence : shape.runs) {
    for (const MixedRun& run : sequence) {
      runs_.push_back({.format = run.format,
                       .first_page = static_cast<int32_t>(formats.size()),
                       .tokens = run.count,
                       .map = run.map});
      formats.resize(formats.size() + CeilDiv(run.count, PageTokens(run.format)), run.format);
      if (HasHeader(run.format)) formats.push_back(Format::kHeader);  // after the run's pages
    }
    run_begin_.push_back(static_cast<int32_t>(runs_.size()));
  }
  const size_t run_pages = formats.size();
  formats.resize(run_pages + CeilDiv(pool, PageTokens(Format::kRaw16)), Format::kRaw16);

  std::vector<size_t> order(formats.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Random places(shuffle);
  std::shuffle(order.begin(), order.end(), places.engine());
  pages_.resize(formats.size());
  for (size_t i : order) {
    pages_[i] = static_cast<PageId>(bytes_ / kPageUnitBytes);
    bytes_ += PageBytes(formats[i], geometry_);
  }
  memory_ = AllocateHost(bytes_);  // even if `ops` runs on a device (staged_ops.h)
  std::memset(memory_.get(), 0xff, bytes_);
  pool_pages_.assign(pages_.begin() + run_pages, pages_.end());

  Random random(values);
  for (int t = 0; t < pool; ++t) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (bool value : {false, true}) {
        uint8_t* row = memory_.get() + PoolSlot(t).page * kPageUnitBytes +
                       Raw16Offset(shape.head_dim, head, value, static_cast<int>(PoolSlot(t).slot));
        for (int i = 0; i < shape.head_dim; ++i) {
          const uint16_t bits = FloatToHalf(random.Normal());
          std::memcpy(row + 2 * i, &bits, 2);
        }
      }
    }
  }
  size_t r = 0;
  for (const auto& sequence : shape.runs) {
    for (const MixedRun& run : sequence) {
      const int per_page = PageTokens(run.format);
      if (HasHeader(run.format)) {
        runs_[r].header = pages_[runs_[r].first_page + CeilDiv(run.count, per_page)];
      }
      // A page that must be filled whole takes tokens from the pool's start after the run's last.
      const int moved = FillsWholePages(run.format) ? RoundUp(run.count, per_page) : run.count;
      std::vector<TokenMove> moves;
      for (int t = 0; t < moved; ++t) {
        const PageId page = pages_[runs_[r].first_page + t / per_page];
        moves.push_back({PoolSlot(t < run.count ? run.first + t : t - run.count),
                         {page, static_cast<uint32_t>(t % per_page)},
                         runs_[r].header});
      }
      ops.MoveTokens(memory_.get(), geometry_, run.format, rule, moves.data(), moved);
      ++r;
    }
  }
}

KvSlot MixedCache::PoolSlot(int token) const {
  const int per_page = PageTokens(Format::kRaw16);
  return {pool_pages_[token / per_page], static_cast<uint32_t>(token % per_page)};
}

KvLayerView MixedCache::view() const {
  return {memory_.get(), geometry_, pages_.data(), runs_.data(), run_begin_.data()};
}

int MixedCache::Tokens(int s) const {
  int n = 0;
  for (int r = run_begin_[s]; r < run_begin_[s + 1]; ++r) n += runs_[r].tokens;
  return n;
}

MixedCache::Element MixedCache::At(int s, int token, int head, bool value, int i) const {
  int r = run_begin_[s];
  for (; token >= runs_[r].tokens; ++r) token -= runs_[r].tokens;
  const Format f = runs_[r].format;
  const int per_page = PageTokens(f), slot = token % per_page, dim = shape_.head_dim;
  const uint8_t* page =
      memory_.get() + pages_[runs_[r].first_page + token / per_page] * kPageUnitBytes;
  const uint8_t* header = HasHeader(f) ? memory_.get() + runs_[r].header * kPageUnitBytes : nullptr;
  const float x = PageElement(page, f, dim, head, value, slot, i, header);
  if (f == Format::kRaw16 || HasHeader(f)) return {x, 0, 0, x};
  const auto half = [&](int64_t at) { return HalfToFloat(LoadHalfBits(page + at)); };
  const int bits = CodecOf(f, value).bits;
  const int code =
      (page[RowOffset(f, dim, head, value, slot) + CodeByte(bits, i)] >> CodeShift(bits, i)) &
      MaxCode(bits);
  return {x, half(ScaleOffset(f, dim, head, value, slot, i)), static_cast<double>(code),
          half(OffsetOffset(f, dim, head, value, slot, i))};
}

const KvRun& MixedCache::RunOf(int s, int token) const {
  int r = run_begin_[s];
  for (; token >= runs_[r].tokens; ++r) token -= runs_[r].tokens;
  return runs_[r];
}

namespace {

// One KV head of one sequence, and the arithmetic of the call.
struct HeadOperands {
  const MixedCache& cache;
  const AttentionArithmetic& arithmetic;
  int sequence, dim, tokens;
  bool low_bits;
  std::vector<MixedCache::Element> keys;  // [tokens, dim]
  std::vector<double> values, codes;      // [tokens], the largest

  HeadOperands(const MixedCache& cache, const AttentionArithmetic& arithmetic, int sequence,
               int kv_head, bool low_bits)
      : cache(cache),
        arithmetic(arithmetic),
        sequence(sequence),
        dim(cache.geometry().head_dim),
        tokens(cache.Tokens(sequence)),
        low_bits(low_bits) {
    for (int t = 0; t < tokens; ++t) {
      values.push_back(0);
      codes.push_back(0);
      for (int i = 0; i < dim; ++i) {
        keys.push_back(cache.At(sequence, t, kv_head, false, i));
        const auto v = cache.At(sequence, t, kv_head, true, i);
        values.back() = std::max(values.back(), Magnitude(v));
        codes.back() = std::max(codes.back(), v.code);
      }
    }
  }
  // If scales are folded into sums, s c and m are summed separately.
  double Magnitude(const MixedCache::Element& e) const {
    return arithmetic.tensor_cores ? e.scale * e.code + std::fabs(e.offset)
                                   : static_cast<double>(std::fabs(e.x));
  }
};

// Returns the sizes of one query's attention to the first `visible` tokens. The sequence has `runs`
// runs, each of which may have a part-filled page.
AttentionSizes SizesOf(const HeadOperands& head, const float* q, int visible, int runs) {
  const int dim = head.dim;
  const double scale = 1 / std::sqrt(dim);
  double largest = 0;
  for (int i = 0; i < dim; ++i) largest = std::max<double>(largest, std::fabs(q[i]));
  AttentionSizes sizes{.tokens = head.tokens + 16 * runs,
                       .low = INFINITY,
                       .high = -INFINITY,
                       .low_bits = head.low_bits};
  double mapped_low = INFINITY, mapped_high = -INFINITY, shift = 0;
  for (int t = 0; t < visible; ++t) {
    double dot = 0, size = 0, flat = 0;
    for (int i = 0; i < dim; ++i) {
      const MixedCache::Element& k = head.keys[t * dim + i];
      dot += double{q[i]} * k.x;
      size += std::fabs(q[i]) * head.Magnitude(k);
      flat += largest * (k.code + k.scale * k.code);
    }
    sizes.value = std::max(sizes.value, head.values[t]);
    sizes.code = std::max(sizes.code, head.codes[t]);
    sizes.scores = std::max(sizes.scores, size * scale);
    sizes.flat = std::max(sizes.flat, flat * scale);
    sizes.low = std::min(sizes.low, dot * scale);
    sizes.high = std::max(sizes.high, dot * scale);
    const LogitMap& map = head.cache.RunOf(head.sequence, t).map;
    if (map.identity()) continue;
    mapped_low = std::min(mapped_low, dot * scale);
    mapped_high = std::max(mapped_high, dot * scale);
    shift = double{map.raise} + map.lower;
  }
  // A logit map a + raise + x (u - a) of [a, b] propagates errors of u, a and b with weights that
  // sum to 1. It adds at most 6 roundings of numbers of this size, as many as the bound grants each
  // score. Its shifts can widen the range of all scores.
  if (mapped_high >= mapped_low) {
    sizes.scores += std::fabs(mapped_low) + (mapped_high - mapped_low) + shift;
    sizes.high += shift;
    sizes.low -= shift;
  }
  return sizes;
}

}  // namespace

std::vector<double> MixedBounds(const BackendCase& backend, const MixedCache& cache,
                                const std::vector<float>& qkv, int heads,
                                const std::vector<int32_t>& query_begin) {
  const int dim = cache.geometry().head_dim, kv_heads = cache.geometry().kv_heads;
  const int group = heads / kv_heads;
  const int64_t row_floats = (heads + 2 * kv_heads) * dim;
  std::vector<double> bounds(query_begin.back() * heads * dim);
  for (int s = 0; s + 1 < static_cast<int>(query_begin.size()); ++s) {
    const int rows = query_begin[s + 1] - query_begin[s];
    const int32_t* runs = cache.view().run_begin + s;
    const bool low_bits =
        std::any_of(cache.view().runs + runs[0], cache.view().runs + runs[1],
                    [](const KvRun& run) { return run.format != Format::kRaw16; });
    const AttentionArithmetic arithmetic = ArithmeticOf(backend, dim, rows, group, low_bits);
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const HeadOperands head(cache, arithmetic, s, kv_head, low_bits);
      for (int row = query_begin[s]; row < query_begin[s + 1]; ++row) {
        const int visible = head.tokens - (query_begin[s + 1] - 1 - row);
        for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const AttentionSizes sizes =
              SizesOf(head, qkv.data() + row * row_floats + h * dim, visible, runs[1] - runs[0]);
          std::fill_n(bounds.begin() + (int64_t{row} * heads + h) * dim, dim,
                      AttentionBound(arithmetic, sizes));
        }
      }
    }
  }
  return bounds;
}

}  // namespace tessera::testing
