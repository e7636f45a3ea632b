#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/half.h"
#include "engine/weights/weights.h"

namespace tessera {
namespace {

constexpr double kStddev = 0.02;
constexpr size_t kKept = 9;  // the newest tensor and 8 before it
constexpr int kQuantiles = 1 << 16;
constexpr int64_t kElementsPerThread = 1 << 20;  // more work than the start of a thread

// Returns x with P(Z < x) = p for a standard normal Z and 0 < p <= 0.5. Bisection is exact enough
// for every dtype. A library's generator would give other values on other platforms.
double NormalQuantile(double p) {
  double low = -10, high = 0;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle * M_SQRT1_2) < p ? low : high) = middle;
  }
  return low;
}

uint64_t Mix(uint64_t x) {  // splitmix64's finaliser (Steele, Lea, Flood 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t HashName(absl::string_view name) {  // FNV-1a: the same on all platforms
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return h;
}

template <class Element>
Element FromDouble(DType dtype, double v);
template <>
uint16_t FromDouble(DType dtype, double v) {
  const float f = static_cast<float>(v);
  return dtype == DType::kF16 ? FloatToHalf(f) : FloatToBFloat16(f);
}
template <>
uint32_t FromDouble(DType, double v) {
  return std::bit_cast<uint32_t>(static_cast<float>(v));
}

// Returns the quantiles of N(0, kStddev^2) at equal steps of probability. 16 random bits choose
// one, so a 64-bit hash gives four values, and billions of parameters take seconds.
template <class Element>
std::vector<Element> MakeTable(DType dtype) {
  std::vector<Element> table(kQuantiles);
  for (int i = 0; i < kQuantiles / 2; ++i) {
    const double x = kStddev * NormalQuantile((i + 0.5) / kQuantiles);
    table[i] = FromDouble<Element>(dtype, x);
    table[kQuantiles - 1 - i] = FromDouble<Element>(dtype, -x);
  }
  return table;
}

// Fills the elements [begin, end) of a tensor. REQUIRES: `begin` is a multiple of 4.
template <class Element>
void FillRange(const std::vector<Element>& table, uint64_t key, int64_t begin, int64_t end,
               Element* out) {
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) {
    const uint64_t bits = Mix(key + static_cast<uint64_t>(i));
    out[i] = table[bits & 0xffff];
    out[i + 1] = table[bits >> 16 & 0xffff];
    out[i + 2] = table[bits >> 32 & 0xffff];
    out[i + 3] = table[bits >> 48];
  }
  uint64_t bits = Mix(key + static_cast<uint64_t>(i));
  for (; i < end; ++i, bits >>= 16) out[i] = table[bits & 0xffff];
}

// Fills a tensor on all processors. A value depends only on its index, not on the thread.
template <class Element>
void FillNormal(const std::vector<Element>& table, uint64_t key, int64_t count, Element* out) {
  const auto processors = static_cast<int64_t>(std::thread::hardware_concurrency());
  const int64_t parts =
      std::clamp<int64_t>(count / kElementsPerThread, 1, std::max<int64_t>(processors, 1));
  const int64_t stretch = RoundUp<int64_t>(CeilDiv(count, parts), 4);
  std::vector<std::thread> threads;
  for (int64_t begin = stretch; begin < count; begin += stretch) {
    threads.emplace_back(
        [&, begin] { FillRange(table, key, begin, std::min(begin + stretch, count), out); });
  }
  FillRange(table, key, 0, std::min(stretch, count), out);
  for (std::thread& t : threads) t.join();
}

class DummySource : public TensorSource {
 public:
  DummySource(DType dtype, uint64_t seed) : dtype_(dtype), seed_(seed) {
    if (dtype == DType::kF32) {
      wide_ = MakeTable<uint32_t>(dtype);
    } else {
      narrow_ = MakeTable<uint16_t>(dtype);
    }
  }

  bool Has(absl::string_view) const override { return true; }

  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    for (size_t i = 0; i < kept_.size(); ++i) {
      if (kept_[i].name != name || kept_[i].shape != shape) continue;
      std::rotate(kept_.begin() + i, kept_.begin() + i + 1, kept_.end());  // makes it the newest
      return View(kept_.back());
    }
    int64_t elements = 1;
    for (int64_t dim : shape) {
      if (dim < 0 || __builtin_mul_overflow(elements, dim, &elements) ||
          elements > (int64_t{1} << 48)) {
        return absl::InvalidArgumentError(
            absl::StrCat("dummy weights: tensor \"", name, "\" has a bad shape"));
      }
    }
    if (kept_.size() == kKept) kept_.pop_front();
    kept_.push_back({std::string(name), shape, nullptr});
    Kept& kept = kept_.back();
    kept.data = std::make_unique_for_overwrite<uint8_t[]>(elements * DTypeBytes(dtype_));
    if (dtype_ == DType::kF32) {
      Fill(wide_, name, elements, reinterpret_cast<uint32_t*>(kept.data.get()));
    } else {
      Fill(narrow_, name, elements, reinterpret_cast<uint16_t*>(kept.data.get()));
    }
    return View(kept);
  }

 private:
  struct Kept {
    std::string name;
    std::vector<int64_t> shape;
    std::unique_ptr<uint8_t[]> data;
  };

  template <class Element>
  void Fill(const std::vector<Element>& table, absl::string_view name, int64_t elements,
            Element* out) const {
    if (absl::EndsWith(name, ".bias")) {
      std::fill_n(out, elements, FromDouble<Element>(dtype_, 0.0));
    } else if (absl::StrContains(name, "norm")) {
      std::fill_n(out, elements, FromDouble<Element>(dtype_, 1.0));
    } else {
      FillNormal(table, Mix(seed_ ^ HashName(name)), elements, out);
    }
  }

  HostTensor View(const Kept& kept) const { return {kept.data.get(), dtype_, kept.shape}; }

  DType dtype_;
  uint64_t seed_;
  std::vector<uint16_t> narrow_;  // quantiles, if dtype_ has 16 bits
  std::vector<uint32_t> wide_;    // quantiles, if dtype_ is float32
  std::deque<Kept> kept_;
};

}  // namespace

std::unique_ptr<TensorSource> MakeDummyWeights(DType dtype, uint64_t seed) {
  return std::make_unique<DummySource>(dtype, seed);
}

}  // namespace tessera
