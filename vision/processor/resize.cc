#include "vision/processor/resize.h"

#include <algorithm>
#include <cmath>

#include "base/base.h"

namespace tessera {
namespace {

constexpr int kFractionBits = 22;  // fractional bits of the fixed-point weights
constexpr int32_t kHalf = 1 << (kFractionBits - 1);

double Triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double Cubic(double x) {  // Keys' kernel with a = -0.5
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

// The inputs and weights of each output coordinate of one axis.
struct Taps {
  std::vector<int> first;       // input index of the first tap
  std::vector<int> count;       // number of taps
  std::vector<int32_t> weight;  // [outputs, stride]
  int stride = 0;

  int begin() const { return first.front(); }              // first input that is read
  int end() const { return first.back() + count.back(); }  // one past the last
};

// Returns the taps of outputs begin .. begin + n of an axis that is resized from in_size to
// out_size.
Taps MakeTaps(int in_size, int out_size, int begin, int n, Resample filter) {
  double (*const kernel)(double) = filter == Resample::kBicubic ? Cubic : Triangle;
  const double scale = static_cast<double>(in_size) / out_size;
  const double filter_scale =
      std::max(scale, 1.0);  // antialiasing: the filter widens when shrinking
  const double support = (filter == Resample::kBicubic ? 2.0 : 1.0) * filter_scale;
  const double inverse = 1.0 / filter_scale;

  Taps taps;
  taps.stride = std::min(in_size, static_cast<int>(std::ceil(support)) * 2 + 1);
  taps.first.resize(n);
  taps.count.resize(n);
  taps.weight.resize(static_cast<size_t>(n) * taps.stride);
  std::vector<double> w(taps.stride);
  for (int i = 0; i < n; ++i) {
    const double center = (begin + i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int count = std::min(in_size, static_cast<int>(center + support + 0.5)) - first;
    double sum = 0.0;
    for (int j = 0; j < count; ++j) {
      w[j] = kernel((j + first - center + 0.5) * inverse);
      sum += w[j];
    }
    int32_t* out = &taps.weight[static_cast<size_t>(i) * taps.stride];
    for (int j = 0; j < count; ++j) {
      const double fixed = (sum != 0.0 ? w[j] / sum : w[j]) * (1 << kFractionBits);
      out[j] = static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    taps.first[i] = first;
    taps.count[i] = count;
  }
  return taps;
}

uint8_t ToByte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

// Returns rows row_begin .. row_end of `in`, resampled along x.
Image HorizontalPass(const Image& in, int row_begin, int row_end, const Taps& taps) {
  Image out;
  out.width = static_cast<int>(taps.first.size());
  out.height = row_end - row_begin;
  out.rgb.resize(size_t{3} * out.width * out.height);
  uint8_t* to = out.rgb.data();
  for (int y = row_begin; y < row_end; ++y) {
    const uint8_t* row = &in.rgb[size_t{3} * in.width * y];
    for (int x = 0; x < out.width; ++x, to += 3) {
      const uint8_t* from = row + 3 * taps.first[x];
      const int32_t* w = &taps.weight[static_cast<size_t>(x) * taps.stride];
      int32_t r = kHalf, g = kHalf, b = kHalf;
      for (int j = 0; j < taps.count[x]; ++j, from += 3) {
        r += from[0] * w[j];
        g += from[1] * w[j];
        b += from[2] * w[j];
      }
      to[0] = ToByte(r);
      to[1] = ToByte(g);
      to[2] = ToByte(b);
    }
  }
  return out;
}

// Returns `in` resampled along y. Row 0 of `in` is input row `in_top` of the taps.
Image VerticalPass(const Image& in, int in_top, const Taps& taps) {
  Image out;
  out.width = in.width;
  out.height = static_cast<int>(taps.first.size());
  const size_t row_bytes = size_t{3} * in.width;
  out.rgb.resize(row_bytes * out.height);
  std::vector<int32_t> sum(row_bytes);
  for (int y = 0; y < out.height; ++y) {
    std::fill(sum.begin(), sum.end(), kHalf);
    for (int j = 0; j < taps.count[y]; ++j) {
      const uint8_t* from = &in.rgb[row_bytes * (taps.first[y] - in_top + j)];
      const int32_t w = taps.weight[static_cast<size_t>(y) * taps.stride + j];
      for (size_t i = 0; i < row_bytes; ++i) sum[i] += from[i] * w;
    }
    std::transform(sum.begin(), sum.end(), &out.rgb[row_bytes * y], ToByte);
  }
  return out;
}

}  // namespace

Image Resize(const Image& in, int width, int height, Resample filter) {
  return ResizeWindow(in, width, height, {0, 0, width, height}, filter);
}

Image ResizeWindow(const Image& in, int width, int height, const Window& window, Resample filter) {
  TESSERA_CHECK(in.width > 0 && in.height > 0 && in.rgb.size() == size_t{3} * in.width * in.height);
  TESSERA_CHECK(window.left >= 0 && window.top >= 0 && window.width > 0 && window.height > 0);
  TESSERA_CHECK(window.width <= width - window.left && window.height <= height - window.top);
  // If a side keeps its length, the weights are exactly 0 and 1, so no pass needs to be skipped.
  const Taps columns = MakeTaps(in.width, width, window.left, window.width, filter);
  const Taps rows = MakeTaps(in.height, height, window.top, window.height, filter);
  return VerticalPass(HorizontalPass(in, rows.begin(), rows.end(), columns), rows.begin(), rows);
}

}  // namespace tessera
