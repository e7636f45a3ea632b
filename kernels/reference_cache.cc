#include "kernels/reference_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/quantize.h"
#include "kernels/token_moves.h"

namespace tessera {
namespace {

struct Element {
  int slot, channel;
  float x;
};

// Quantizes values that share one scale and offset, and stores all three.
void StoreVector(uint8_t* page, Format f, int head_dim, int head, bool value, float clip,
                 bool integer_offset, const std::vector<Element>& elements) {
  const int bits = CodecOf(f, value).bits;
  float min = elements[0].x, max = min;
  for (const Element& e : elements) {
    min = std::min(min, e.x);
    max = std::max(max, e.x);
  }
  const Affine affine = FitAffine(min, max, bits, clip, integer_offset);
  for (const Element& e : elements) {
    std::memcpy(page + ScaleOffset(f, head_dim, head, value, e.slot, e.channel), &affine.scale, 2);
    std::memcpy(page + OffsetOffset(f, head_dim, head, value, e.slot, e.channel), &affine.offset,
                2);
    uint8_t& byte = page[RowOffset(f, head_dim, head, value, e.slot) + CodeByte(bits, e.channel)];
    const int shift = CodeShift(bits, e.channel);
    const int code = AffineCode(e.x, HalfToFloat(affine.scale), HalfToFloat(affine.offset), bits);
    byte = static_cast<uint8_t>((byte & ~(MaxCode(bits) << shift)) | (code << shift));
  }
}

}  // namespace

void ReferenceMoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                         const QuantRule& rule, const TokenMove* moves, int64_t n) {
  CheckTokenMoves(geometry, to, rule, moves, n);
  const int dim = geometry.head_dim, group = FillsWholePages(to) ? PageTokens(to) : 1;
  const auto page_of = [&](const KvSlot& slot) { return arena + slot.page * kPageUnitBytes; };
  for (const TokenMove* m = moves; m < moves + n; m += group) {
    uint8_t* page = page_of(m->to);
    for (int head_part = 0; head_part < 2 * geometry.kv_heads; ++head_part) {
      const int head = head_part / 2;
      const bool value = head_part % 2 == 1;
      const auto element = [&](int token, int channel) {
        const KvSlot& from = m[token].from;
        return Element{static_cast<int>(m[token].to.slot), channel,
                       PageElement(page_of(from), Format::kRaw16, dim, head, value,
                                   static_cast<int>(from.slot), channel)};
      };
      const float clip = value ? rule.clip_v : rule.clip_k;
      std::vector<Element> elements;
      switch (CodecOf(to, value).axis) {
        case Axis::kNone:
          std::memcpy(
              page + Raw16Offset(dim, head, value, static_cast<int>(m->to.slot)),
              page_of(m->from) + Raw16Offset(dim, head, value, static_cast<int>(m->from.slot)),
              dim * 2);
          break;
        case Axis::kToken:
          for (int t = 0; t < group; ++t) {
            elements.clear();
            for (int i = 0; i < dim; ++i) elements.push_back(element(t, i));
            StoreVector(page, to, dim, head, value, clip, rule.integer_offset, elements);
          }
          break;
        case Axis::kChannel:
          for (int i = 0; i < dim; ++i) {
            elements.clear();
            for (int t = 0; t < group; ++t) elements.push_back(element(t, i));
            StoreVector(page, to, dim, head, value, clip, rule.integer_offset, elements);
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

}  // namespace tessera
