#include "kernels/host/softmax_weights.h"

#include <bit>
#include <cstdint>

namespace tessera {
namespace {

// Returns e^y for kZero <= y <= 0. It writes y = k ln 2 + r with |r| <= ln 2 / 2 and uses the
// Taylor polynomial of degree 12, whose remainder there is below 2e-16. At k = -1023 the exponent
// field and so the result is 0.
constexpr double kZero = -709.4;
inline double Exp(double y) {
  constexpr double kLog2e = 0x1.71547652b82fep0;
  constexpr double kLn2High = 0x1.62e42fefa0000p-1, kLn2Low = 0x1.cf79abc9e3b3ap-40;
  constexpr double kRound = 0x1.8p52;  // adding it leaves the rounded integer in the low bits
  const double shifted = y * kLog2e + kRound;
  const double k = shifted - kRound;
  const double r = (y - k * kLn2High) - k * kLn2Low;
  double p = 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t two_to_k = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;
  return p * std::bit_cast<double>(two_to_k);
}

}  // namespace

void SoftmaxWeights(absl::Span<const float> logits, float largest, double temperature,
                    double* weights) {
  const float* in = logits.data();
  const size_t n = logits.size();
  const double top = largest, scale = 1.0 / temperature;
  // Two loops, because in a single one GCC turns the bound into a branch and does not vectorize.
  for (size_t i = 0; i < n; ++i) {
    const double y = (in[i] - top) * scale;
    weights[i] = y > kZero ? y : kZero;
  }
  for (size_t i = 0; i < n; ++i) weights[i] = Exp(weights[i]);
}

double SumOf(const double* weights, size_t n) {
  constexpr size_t kLanes = 8;  // independent sums, so that additions overlap
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += weights[i + j];
  }
  double sum = 0;
  for (double lane : lanes) sum += lane;
  for (; i < n; ++i) sum += weights[i];
  return sum;
}

}  // namespace tessera
