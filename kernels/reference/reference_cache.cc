#include "kernels/reference/reference_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/host/token_moves.h"
#include "kernels/layout/quantize.h"

namespace tessera {
namespace {

struct Element {
  uint8_t* page;
  int slot, channel;
  float x;
};

// K or V of one head, its format and its quantization parameters.
struct Part {
  Format format;
  int dim, head;
  bool value;
  float clip;
  bool integer_offset;
  float quantile;
};

// Quantizes values that share one scale and offset, and stores codes, scale and offset. `header` is
// the segment's header page, or null.
void StoreVector(const Part& p, uint8_t* header, const std::vector<Element>& elements) {
  const int bits = CodecOf(p.format, p.value).bits;
  std::vector<float> sorted;
  for (const Element& e : elements) sorted.push_back(e.x);
  std::sort(sorted.begin(), sorted.end());
  const int64_t trimmed = Trimmed(static_cast<int64_t>(sorted.size()), p.quantile);
  const Affine affine = FitAffine(sorted[trimmed], sorted[sorted.size() - 1 - trimmed], bits,
                                  p.clip, p.integer_offset);
  const Format of = header != nullptr ? Format::kHeader : p.format;
  for (const Element& e : elements) {
    uint8_t* meta = header != nullptr ? header : e.page;
    std::memcpy(meta + ScaleOffset(of, p.dim, p.head, p.value, e.slot, e.channel), &affine.scale,
                2);
    std::memcpy(meta + OffsetOffset(of, p.dim, p.head, p.value, e.slot, e.channel), &affine.offset,
                2);
    uint8_t& byte =
        e.page[RowOffset(p.format, p.dim, p.head, p.value, e.slot) + CodeByte(bits, e.channel)];
    const int shift = CodeShift(bits, e.channel);
    const int code = AffineCode(e.x, HalfToFloat(affine.scale), HalfToFloat(affine.offset), bits);
    byte = static_cast<uint8_t>((byte & ~(MaxCode(bits) << shift)) | (code << shift));
  }
}

}  // namespace

void ReferenceMoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                         const QuantRule& rule, const TokenMove* moves, int64_t n) {
  CheckTokenMoves(geometry, to, rule, moves, n);
  const int dim = geometry.head_dim;
  const auto page_of = [&](PageId page) { return arena + page * kPageUnitBytes; };
  int64_t end = 0;
  for (int64_t begin = 0; begin < n; begin = end) {  // a group that shares scales, or one token
    end = HasHeader(to)         ? SegmentEnd(moves, begin, n)
          : FillsWholePages(to) ? begin + PageTokens(to)
                                : begin + 1;
    for (int head_part = 0; head_part < 2 * geometry.kv_heads; ++head_part) {
      const int head = head_part / 2;
      const bool value = head_part % 2 == 1;
      const Part part = {
          to,           dim, head, value, value ? rule.clip_v : rule.clip_k, rule.integer_offset,
          rule.quantile};
      const auto element = [&](const TokenMove& move, int channel) {
        const int from = static_cast<int>(move.from.slot);
        return Element{
            page_of(move.to.page), static_cast<int>(move.to.slot), channel,
            PageElement(page_of(move.from.page), Format::kRaw16, dim, head, value, from, channel)};
      };
      std::vector<Element> elements;
      switch (const Codec& codec = CodecOf(to, value); codec.axis) {
        case Axis::kNone: {
          const KvSlot &source = moves[begin].from, &slot = moves[begin].to;
          std::memcpy(
              page_of(slot.page) + Raw16Offset(dim, head, value, static_cast<int>(slot.slot)),
              page_of(source.page) + Raw16Offset(dim, head, value, static_cast<int>(source.slot)),
              dim * 2);
          break;
        }
        case Axis::kToken:
          for (int64_t t = begin; t < end; ++t) {
            const int group = GroupChannels(codec, dim);
            for (int first = 0; first < dim; first += group) {
              elements.clear();
              for (int i = first; i < std::min(dim, first + group); ++i) {
                elements.push_back(element(moves[t], i));
              }
              StoreVector(part, nullptr, elements);
            }
          }
          break;
        case Axis::kChannel:
        case Axis::kSegment:
          for (int i = 0; i < dim; ++i) {
            elements.clear();
            for (int64_t t = begin; t < end; ++t) elements.push_back(element(moves[t], i));
            StoreVector(part, HasHeader(to) ? page_of(moves[begin].header) : nullptr, elements);
          }
          break;
      }
    }
  }
}

void ReferenceHadamard(float* x, int64_t n) {
  TESSERA_CHECK(n > 0 && (n & (n - 1)) == 0);
  for (int64_t step = 1; step < n; step *= 2) {
    for (int64_t i = 0; i < n; ++i) {
      if (i & step) continue;
      const float a = x[i], b = x[i + step];
      x[i] = a + b;
      x[i + step] = a - b;
    }
  }
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

bool ReferenceMapLogits(const LogitMap& map, const std::vector<double*>& logits) {
  double low = INFINITY, high = -INFINITY;
  for (const double* u : logits) {
    low = std::min(low, *u);
    high = std::max(high, *u);
  }
  const double range = high - low, target = range - map.raise - map.lower;
  const double slope = target > 0 ? target / range : 0;
  for (double* u : logits) *u = low + map.raise + slope * (*u - low);
  return target < 0;
}

}  // namespace tessera
