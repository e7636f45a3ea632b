// Fills a CpuKernels table with the kernels over one vector type.
#pragma once

#include "kernels/cpu/simd/attention-inl.h"
#include "kernels/cpu/simd/dense-inl.h"
#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/simd/pages-inl.h"
#include "kernels/cpu/simd/rows-inl.h"
#include "kernels/cpu/simd/statistics-inl.h"

namespace tessera {

template <class V>
constexpr CpuKernels MakeKernels(const char* isa) {
  return CpuKernels{
      .isa = isa,
      .direct_rows = Dense<V>::kDirectRows,
      .tile_rows = V::kTileRows,
      .tile_panels = V::kTilePanels,
      .dense_direct = Dense<V>::Direct,
      .dense_widen = Dense<V>::Widen,
      .dense_tile = Dense<V>::Tile,
      .dense_finish = Dense<V>::FinishRows,
      .embed = Rows<V>::Embed,
      .rms_norm = Rows<V>::RmsNorm,
      .layer_norm = Rows<V>::LayerNorm,
      .swiglu = Rows<V>::SwiGlu,
      .activate = Rows<V>::Activate,
      .rope = Rows<V>::Rope,
      .store_half = Rows<V>::StoreHalf,
      .load_half = Rows<V>::LoadHalf,
      .hadamard = Rows<V>::Hadamard,
      .exp = Rows<V>::Exp,
      .erf = Rows<V>::Erf,
      .attend_converted = V::kAttendQueries,
      .attend_page = Attention<V>::Page,
      .logit_range = Attention<V>::Range,
      .attend_finish = Attention<V>::Finish,
      .dequantize = Pages<V>::Dequantize,
      .quantize = Pages<V>::Quantize,
      .column_ranges = Pages<V>::ColumnRanges,
      .row_ranges = Pages<V>::RowRanges,
      .convolve = Statistics<V>::Convolve,
      .squared_distance = Statistics<V>::SquaredDistance,
      .scores = Statistics<V>::Scores,
  };
}

}  // namespace tessera
