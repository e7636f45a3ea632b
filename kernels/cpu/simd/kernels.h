// The arithmetic of the CPU backend: one table of functions per instruction set.
//
// Why a table: the files that fill it are compiled for AVX2 or AVX-512, all other files for
// baseline x86-64. The machine decides at start which table is used.
//
// Bit equality: the functions are templates over a vector of 16 floats (simd_*.h) whose operations
// are the same sequence of IEEE operations on every instruction set. All tables therefore give the
// same bits, and an answer depends neither on batching nor on the machine. The promised orders are:
//   dense      one accumulator per output element, k ascending, one fused multiply-add each
//   q . k      lane l sums the elements l, l + 16, ... of the head; lanes are then added in a tree
//              (l with l + 8, then + 4, + 2, + 1)
//   softmax    online, page by page; values are added by fused multiply-add, token after token
//   norms      lanes as in q . k
// Threads: the tables are immutable; their functions touch only their arguments.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace tessera {

constexpr int kLanes = 16;
// The inner dimension between two spills of the accumulators (spilling is exact). A block of
// converted weights for two panels (32 KiB) and the rows it is multiplied with stay in the nearest
// caches.
constexpr int kDenseBlock = 256;
// Row stride of packed activations. It is not a multiple of 4096 bytes, so that a tile's rows lie
// in different cache sets. It is a constant, so that the compiler addresses all rows from one
// register.
constexpr int kDenseStride = kDenseBlock + 16;
constexpr int kMaxHeadDim = 256;

// One MatMul. The packed weights are panels [ceil(out / 16)][in][16] in the stored dtype; the last
// panel is padded with zeros.
struct DenseCall {
  const uint8_t* panels;
  DType dtype;
  int64_t in, out;
  const float* bias;  // [out] or null
  const float* x;     // [rows, in]
  int64_t rows;
  float* y;  // [rows, out]
  Activation act;
  const float* residual;  // [rows, out] or null; may be y
};

// The attention of a block of query rows of one KV head to one page. `stride` is head_dim rounded
// up to 16. Rows of q, k, v and out are padded with zeros to it.
struct AttendPage {
  // K and V rows of the page's 16 tokens. Either as stored: half, rows of `stride` elements, with
  // head_dim a multiple of 16. Or converted to float [16][stride]. The other pair is null.
  const uint16_t* k_half;
  const uint16_t* v_half;
  const float* k_float;
  const float* v_float;
  int64_t stride;
  float scale;  // of q . k, before softmax
  int queries;
  const float* q;          // [queries][stride]
  const int32_t* visible;  // [queries]: tokens of the page that the query sees; 0: skip
  float* max;              // [queries], over all scores so far
  float* sum;              // [queries][16], lanes of the softmax denominator
  float* out;              // [queries][stride], not yet divided
  // K and V of the next page as stored, or null. They are prefetched during this page, because
  // pages lie anywhere and the hardware cannot predict them.
  const uint8_t* next;
  int64_t next_bytes;
  // [queries] each, or null: logit u becomes slope * (u - low) + base.
  const float* slope;
  const float* low;
  const float* base;
};

// Converts K or V of up to 16 tokens of one page and head from codes c to floats s * c + m.
struct DequantizeCall {
  const uint8_t* codes;  // [tokens][row_bytes]
  int64_t row_bytes;
  int bits;  // 8, 4, 2 or 1
  bool per_channel;
  const uint16_t* scales;   // half [dim] per channel, else [16] for any `tokens`
  const uint16_t* offsets;  // the same
  int64_t dim;
  int tokens;
  float* out;  // [tokens][stride]; elements from dim on are not changed
  int64_t stride;
};

// Quantizes one row: c = round(clamp((x - m) / s, 0, max_code)), one byte per code.
struct QuantizeCall {
  const float* x;  // [dim]
  int64_t dim;
  bool per_channel;
  const float* scales;   // [dim] per channel, else [1]
  const float* offsets;  // the same
  int max_code;
  uint8_t* codes;  // room for dim rounded up to 16
};

struct CpuKernels {
  const char* isa;

  // --- dense ---
  int direct_rows;  // up to this many rows, weights are read straight from the panels
  int tile_rows;    // rows of a register tile
  int tile_panels;  // panels of a register tile
  // Computes the whole call for panels [begin, end). REQUIRES: rows <= direct_rows.
  void (*dense_direct)(const DenseCall&, int64_t begin, int64_t end);
  // Converts a panel's weights to float: out[(k - k_begin) * 16 + lane].
  void (*dense_widen)(const DenseCall&, int64_t panel, int64_t k_begin, int64_t k_end, float* out);
  // Computes c[rows][panels * 16] (+)= a[rows][kDenseStride] b with b = [panels][k][16], panel
  // stride `b_stride` floats. REQUIRES: rows <= tile_rows, panels <= tile_panels.
  void (*dense_tile)(const float* a, int64_t rows, const float* b, int64_t b_stride, int64_t panels,
                     int64_t k, float* c, int64_t c_stride, bool accumulate);
  // Computes rows [row, row + rows) of y for panels [begin, end) from the sums c[rows][c_stride].
  void (*dense_finish)(const DenseCall&, const float* c, int64_t c_stride, int64_t row,
                       int64_t rows, int64_t begin, int64_t end);

  // --- rows ---
  void (*embed)(const void* from, DType dtype, int64_t cols, float* out);
  void (*rms_norm)(const float* x, const float* w, int64_t cols, float eps, float* y);
  void (*layer_norm)(const float* x, const float* w, const float* b, int64_t cols, float eps,
                     float* y);
  void (*swiglu)(const float* gate, const float* up, int64_t cols, float* y);
  void (*activate)(const float* x, int64_t n, Activation act, float* y);
  void (*rope)(float* head, const float* cos, const float* sin, int64_t half_dim);
  void (*store_half)(const float* from, int64_t n, uint16_t* to);  // saturates
  void (*load_half)(const uint16_t* from, int64_t n, float* to);
  // Multiplies x[0 .. n) by the Walsh-Hadamard matrix over sqrt(n), n a power of two, in the order
  // of Ops::RopeAndStore. `scale` is the rounded 1 / sqrt(n).
  void (*hadamard)(float* x, int64_t n, float scale);
  // The functions inside the activations and softmax by themselves: tests measure their errors.
  void (*exp)(const float* x, int64_t n, float* y);
  void (*erf)(const float* x, int64_t n, float* y);

  // --- attention ---
  int attend_converted;  // from this many queries on, converting a page first is faster
  void (*attend_page)(const AttendPage&);
  // Extends [low, high], [queries] each, by the logits of the tokens that a query sees. Reads K
  // only; the logits are attend_page's, bit for bit.
  void (*logit_range)(const AttendPage&, float* low, float* high);
  // Computes out[i] = sums[i] / (sum of the 16 lanes) for i < n.
  void (*attend_finish)(const float* sums, const float* lanes, int64_t n, float* out);

  // --- low-bit pages ---
  void (*dequantize)(const DequantizeCall&);
  void (*quantize)(const QuantizeCall&);
  // Compute the smallest and the largest of x[rows][cols], per column and per row.
  void (*column_ranges)(const float* x, int64_t rows, int64_t cols, float* min, float* max);
  void (*row_ranges)(const float* x, int64_t rows, int64_t cols, float* min, float* max);

  // --- statistics ---
  // Computes 16 circular convolutions of n complex numbers at once, in place: z [n][re, im][16]
  // becomes the inverse transform of (its transform times `spectrum`), not divided by n. n is a
  // power of two. twiddles [n][re, im] has in entry h + j the value e^(-2 pi i j / 2h), for h = 1,
  // 2, 4, ... n / 2 and j < h. spectrum [n][re, im] is in bit-reversed order.
  void (*convolve)(float* z, int64_t n, const float* twiddles, const float* spectrum);
  float (*squared_distance)(const float* a, const float* b, int64_t n);  // lanes as in q . k
  // Computes out[t] = scale * (q . k[t, :]) for t < tokens, lanes as in q . k.
  void (*scores)(const float* q, const uint16_t* k, int64_t tokens, int64_t dim, float scale,
                 float* out);
};

const CpuKernels& ScalarKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();

}  // namespace tessera
