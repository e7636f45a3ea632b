// Low-pass residuals through a grid: a non-uniform cosine transform (Dutt and Rokhlin 1993) with
// the Kaiser-Bessel window (as in Fessler and Sutton 2003).
//
// The base of N tokens is P x, where P projects to the first K of N cosines. M = 1.5 K points over
// the same range represent a signal of so few frequencies, so P = W^T D W up to 1e-4 of the signal.
// W spreads each token to the points around it with the weights of a smooth window. D filters the
// grid: it keeps cosines below the cut-off and divides each by the window's gain, twice. W^T
// interpolates each token's base from the points around it.
//
// W is a band and costs little compared with reading the tokens. D has M^2 numbers. Cosines are
// even or odd about the middle, so half of D is zero once points are folded with their mirror
// images. That leaves (1.5 K)^2 / 2 products per channel, for any N. (Two products with K cosines,
// folded likewise, take N K.)
//
// First, each channel's mean over some tokens is subtracted: a constant is its own base, and the
// rest loses less by rounding to half.
#pragma once

#include "kernels/cuda/common/workspace_layout.h"
#include "kernels/cuda/low_pass/job.cuh"

namespace tessera::cuda {

constexpr int kFragment = 16;      // points or tokens per warp: the tensor cores' rows
constexpr int kFragmentWarps = 4;  // warps per block; each has its own fragment

// The positions of tokens and points, counted in points: point m is at m + 1/2, token t at (2 t +
// 1) points / (2 tokens). Points after the middle mirror the others, except kEdge of them that
// tokens before the middle reach.
struct Grid {
  static constexpr int kReach = 5;  // points that a token spreads to
  static constexpr int kEdge = 8;
  int tokens, kept, points;  // `points`: a multiple of 16
  float beta, scale;         // the window's

  Grid(int tokens, int kept);

  __host__ __device__ int half() const { return points / 2; }
  __host__ __device__ int rows() const { return half() + kEdge; }  // rows that are read
  __host__ __device__ int half_tokens() const { return (tokens + 1) / 2; }

  // Returns the weight of token t on point m: the window's, whose sum over the points is about 1.
  // The signal continues evenly before the first token.
  __device__ float Weight(int m, int t) const {
    const int64_t point = (2 * int64_t{m} + 1) * tokens, token = (2 * int64_t{t} + 1) * points;
    return Window(point - token) + Window(point + token);
  }
  __device__ float Window(int64_t distance) const {
    const float d = static_cast<float>(distance) / static_cast<float>(int64_t{tokens} * kReach);
    return fabsf(d) < 1 ? scale * cyl_bessel_i0f(beta * sqrtf(1 - d * d)) : 0;
  }
  // Returns the filter's factor for coefficient k: the ratio of the window's transform at 0 and at
  // k, squared.
  __device__ float Gain(int k) const {
    const float x = 3.14159265f * kReach * static_cast<float>(k) / static_cast<float>(2 * points);
    const float z = sqrtf(beta * beta - x * x), twice_sinh = expf(z) - expf(-z);
    const float ratio = 2 * z / (scale * kReach * twice_sinh);
    return ratio * ratio;
  }
  // Return the first token that weighs on a fragment's points, a multiple of kFragment, and the
  // first point that a fragment's tokens weigh on.
  __device__ int FirstToken(int fragment) const {
    const int64_t reach = 2 * (int64_t{fragment} * kFragment - 2) * tokens - points;
    return reach <= 0 ? 0 : static_cast<int>(reach / (2 * points)) / kFragment * kFragment;
  }
  __device__ int FirstPoint(int fragment) const {
    const int64_t reach = (int64_t{fragment} * 2 * kFragment + 1) * points - 6 * int64_t{tokens};
    return reach <= 0 ? 0 : static_cast<int>(reach / (2 * int64_t{tokens})) + 1;
  }
};

// Weights as first factors of products: one fragment per warp, with `steps` groups of kFragment
// columns.
struct Fragments {
  uint4* at;
  int count, steps;

  __device__ void Get(int fragment, int step, uint32_t (&a)[4]) const {
    const uint4 x = __ldg(at + (fragment * steps + step) * 32 + threadIdx.x % 32);
    a[0] = x.x, a[1] = x.y, a[2] = x.z, a[3] = x.w;
  }
};

// The weights with which the grid's kernels multiply.
struct GridWeights {
  Fragments spread;       // rows: points, columns: tokens
  Fragments interpolate;  // rows: tokens, columns: points
  float* spread_sums;     // [fragments * kFragment] sum of each point's rounded weights
  float* distances;       // [2, points + kEdge] the filter by distance of points
  // [2, filter_rows, half]: D for half the sum (0) and half the difference (1) of points. It has
  // filter_rows rows at a time, since the whole grows with the square of `kept`.
  __half* filter;
  int filter_rows;

  GridWeights(const Grid& grid, WorkspaceLayout& memory);
  void Compute(const Grid& grid, cudaStream_t stream) const;  // all except the filter
  void ComputeFilter(const Grid& grid, int first_row, cudaStream_t stream) const;
};

// Computes means [layers, 2, channels] of K and V over tokens at equal distances.
void ChannelMeans(const LowPassJob& job, float* means, cudaStream_t stream);

// Spreads `layers` layers from layer0 on, K and V: columns = layers * 2 * channels. Computes folded
// [2, half, columns]: half the sum and half the difference of each point and its mirror image,
// without the means.
void SpreadTokens(const LowPassJob& job, const Grid& grid, const GridWeights& weights,
                  const float* means, int layer0, int layers, __half* folded, cudaStream_t stream);

// Interpolates tokens' bases and computes their distances. filtered [2, rows, columns] is laid out
// as folded. partial [layers of the job, 2 * parts, tokens, 2] is the argument of SumParts.
int InterpolatedParts(const LowPassJob& job);
void InterpolateDistances(const LowPassJob& job, const Grid& grid, const Fragments& weights,
                          const __half* filtered, const float* means, int layer0, int layers,
                          float* partial, cudaStream_t stream);

}  // namespace tessera::cuda
