// Adds tokens of a run to a warp's attention on CUDA cores in float32: 16-bit pages at memory
// speed, others in a simple way, each value as page_layout.h defines it.
#pragma once

#include <climits>

#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/attention/paged/warp_attention.cuh"

namespace tessera::cuda {

// Adds tokens [low, high) of a RAW16 run of one KV head. `first` is the run's first token, counted
// over the sequence.
template <int kLanes, int kQueries>
__device__ void AddRaw16(const PagedArgs& args, const KvRun& run, int first, int low, int high,
                         int head, WarpAttention<kLanes, kQueries>& attention) {
  using Attention = WarpAttention<kLanes, kQueries>;
  constexpr int kPage = PageTokens(Format::kRaw16), kLoads = kPage / Attention::kTokens;
  constexpr int kMost = kQueries > 1 ? 2 : 4, kSteps = kLoads < kMost ? kLoads : kMost;
  const int dim = args.kv.geometry.head_dim, column = Attention::Column() * 8;
  const bool active = column < dim;
  const int64_t to_value = Raw16Offset(dim, 0, true, 0);
  const uint8_t* base = args.kv.arena + Raw16Offset(dim, head, false, 0) + column * 2;
  const PageId* pages = args.kv.pages + run.first_page;
  // All lanes read the next page's id one page ahead. A shuffle here would delay its loads until
  // after this page's sums.
  PageId id = low < high ? pages[low / kPage] : 0;
  for (int p = low / kPage; p * kPage < high; ++p) {
    const uint8_t* page = base + id * kPageUnitBytes;
    if ((p + 1) * kPage < high) id = pages[p + 1];
    uint4 key[kLoads], value[kLoads];
    const auto token = [&](int j) { return p * kPage + j * Attention::kTokens; };
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int at = token(j) + Attention::TokenLane();
      const bool there = active && at >= low && at < high;
      const auto* k = reinterpret_cast<const uint4*>(page + (at % kPage) * dim * 2);
      key[j] = there ? __ldg(k) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int at = token(j) + Attention::TokenLane();
      const bool there = active && at >= low && at < high;
      const auto* v = reinterpret_cast<const uint4*>(page + to_value + (at % kPage) * dim * 2);
      value[j] = there ? __ldg(v) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < kLoads; i += kSteps) {
      attention.template Add<kSteps>([&](int j, float(&out)[8]) { ToFloats(key[i + j], out); },
                                     [&](int j, float(&out)[8]) { ToFloats(value[i + j], out); },
                                     [&](int j) {
                                       const int at = token(i + j) + Attention::TokenLane();
                                       return at >= low && at < high ? first + at : INT_MAX;
                                     });
    }
  }
}

// Returns the head's first byte in the page with its run's scales, or null if each page has its
// own.
__device__ inline const uint8_t* HeaderHead(const uint8_t* arena, const PageParts& parts,
                                            const KvRun& run, int head) {
  if (parts.header_head_bytes == 0) return nullptr;
  return arena + run.header * kPageUnitBytes + int64_t{head} * parts.header_head_bytes;
}

// Loads channels 8 * column .. + 7 of one token's K or V from a low-bit page of `tokens` tokens.
// `head` is the head's first byte in the page, `header` the result of HeaderHead.
__device__ inline void LoadCodes(const uint8_t* head, const uint8_t* header, const PagePart& part,
                                 int tokens, int slot, int column, float (&out)[8]) {
  const uint8_t* codes = head + part.codes + slot * part.row_bytes + column * part.bits;
  uint64_t packed = 0;
  switch (part.bits) {
    case 8:
      packed = __ldg(reinterpret_cast<const unsigned long long*>(codes));
      break;
    case 4:
      packed = __ldg(reinterpret_cast<const uint32_t*>(codes));
      break;
    case 2:
      packed = __ldg(reinterpret_cast<const uint16_t*>(codes));
      break;
    default:
      packed = __ldg(codes);
  }
  float scale[8], offset[8];
  const auto* meta =
      reinterpret_cast<const __half*>((header != nullptr ? header : head) + part.meta);
  if (part.axis != Axis::kToken) {
    ToFloats(__ldg(reinterpret_cast<const uint4*>(meta) + column), scale);
    ToFloats(__ldg(reinterpret_cast<const uint4*>(meta + part.scales) + column), offset);
  } else {
    const int at = column / part.group * tokens + slot;
    scale[0] = __half2float(meta[at]);
    offset[0] = __half2float(meta[part.scales + at]);
#pragma unroll
    for (int i = 1; i < 8; ++i) scale[i] = scale[0], offset[i] = offset[0];
  }
  const uint32_t mask = (1u << part.bits) - 1;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t code = static_cast<uint32_t>(packed >> (i * part.bits)) & mask;
    out[i] = fmaf(scale[i], static_cast<float>(code), offset[i]);
  }
}

// The same as AddRaw16 for a run of any low-bit format. `attention` is a WarpAttention or a type
// that takes tokens likewise; `more` has further arguments of its Add.
template <class Attention, class... More>
__device__ void AddLowBits(const PagedArgs& args, const KvRun& run, int first, int low, int high,
                           int head, Attention& attention, const More&... more) {
  constexpr int kSteps = 2;
  const PageParts& parts = args.formats[static_cast<int>(run.format)];
  const int column = Attention::Column();
  const bool active = column * 8 < args.kv.geometry.head_dim;
  const PageId* pages = args.kv.pages + run.first_page;
  const uint8_t* header = HeaderHead(args.kv.arena, parts, run, head);
  for (int base = low; base < high; base += kSteps * Attention::kTokens) {
    float key[kSteps][8], value[kSteps][8];
    const auto token = [&](int j) {
      return base + j * Attention::kTokens + Attention::TokenLane();
    };
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
#pragma unroll
      for (int i = 0; i < 8; ++i) key[j][i] = value[j][i] = 0;
      const int at = token(j);
      if (!active || at >= high) continue;
      const uint8_t* in_page = args.kv.arena + pages[at / parts.tokens] * kPageUnitBytes +
                               int64_t{head} * parts.head_bytes;
      LoadCodes(in_page, header, parts.part[0], parts.tokens, at % parts.tokens, column, key[j]);
      LoadCodes(in_page, header, parts.part[1], parts.tokens, at % parts.tokens, column, value[j]);
    }
    __syncwarp();
    const auto copy = [](const float(&from)[8], float(&out)[8]) {
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = from[i];
    };
    attention.template Add<kSteps>(
        [&](int j, float(&out)[8]) { copy(key[j], out); },
        [&](int j, float(&out)[8]) { copy(value[j], out); },
        [&](int j) { return token(j) < high ? first + token(j) : INT_MAX; }, more...);
  }
}

// The same for a run that may have a LogitMap; query g's map is maps[at(g)].
template <int kLanes, int kQueries, class At>
__device__ void AddMapped(const PagedArgs& args, const KvRun& run, int first, int low, int high,
                          int head, WarpAttention<kLanes, kQueries>& attention, const At& at) {
  if (run.map.identity()) {
    AddLowBits(args, run, first, low, high, head, attention);
  } else {
    AddLowBits(args, run, first, low, high, head, attention,
               [&](int g, float score) { return args.maps[at(g)].Of(score); });
  }
}

template <int kLanes, int kQueries, class At>
__device__ void AddRun(const PagedArgs& args, const KvRun& run, int first, int low, int high,
                       int head, WarpAttention<kLanes, kQueries>& attention, const At& at) {
  if (run.format == Format::kRaw16) {
    AddRaw16(args, run, first, low, high, head, attention);
  } else {
    AddMapped(args, run, first, low, high, head, attention, at);
  }
}

}  // namespace tessera::cuda
