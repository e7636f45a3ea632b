// tessera_bench gemm: the dense layer compared with OpenBLAS in the same run.
#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/half.h"
#include "kernels/backend/backend.h"
#include "tests/bench/bench.h"
#include "tests/bench/device.h"
#include "tests/bench/openblas.h"

namespace tessera::bench {
namespace {

// Weights in the stored dtype and, for OpenBLAS, the same values as float.
struct Weights {
  Linear packed;
  std::vector<float> floats;
};

absl::StatusOr<DType> ParseDType(const std::string& name) {
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == DTypeName(t)) return t;
  }
  return absl::InvalidArgumentError("--dtype is F32, F16 or BF16");
}

Weights MakeWeights(Ops& ops, int64_t in, int64_t out, DType dtype, uint64_t seed, bool floats) {
  std::vector<float> values(in * out);
  FastRandom(seed).Fill(values.data(), in * out);
  std::vector<uint16_t> halves;
  if (dtype != DType::kF32) {
    for (float& v : values) {
      const uint16_t h = dtype == DType::kF16 ? FloatToHalf(v) : FloatToBFloat16(v);
      v = dtype == DType::kF16 ? HalfToFloat(h) : BFloat16ToFloat(h);
      halves.push_back(h);
    }
  }
  const void* data = dtype == DType::kF32 ? static_cast<const void*>(values.data()) : halves.data();
  Weights w{ops.MakeLinear({{data, nullptr, out}}, in, dtype), {}};
  if (floats) w.floats = std::move(values);
  return w;
}

double WorstDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(double{a[i]} - b[i]));
  return worst;
}

struct Candidate {
  std::string name;
  std::function<void(const Weights&)> run;
  double weight_bytes;
};

// The dense layer that is timed.
struct Layer {
  Ops& ops;
  const OpenBlas* blas;  // or null
  int64_t in, out, threads;
  DType dtype;
  std::string isa;
};

// Times m rows and adds a row per candidate. INTERNAL if the candidates' results differ.
absl::Status RunRows(const Flags& flags, const Layer& layer, const std::vector<Weights>& weights,
                     int64_t m, Report& report) {
  const int64_t in = layer.in, out = layer.out;
  const OpenBlas* const blas = layer.blas;
  std::vector<float> x(m * in), y(m * out), y_blas(m * out);
  std::vector<Candidate> candidates = {
      {absl::StrCat("tessera ", layer.isa),
       [&](const Weights& w) { layer.ops.MatMul(w.packed, x.data(), m, y.data()); },
       1.0 * in * out * DTypeBytes(layer.dtype)}};
  if (blas != nullptr) {
    candidates.push_back({absl::StrCat("sgemm ", blas->core()),
                          [&](const Weights& w) {
                            blas->MatMul(w.floats.data(), in, out, x.data(), m, y_blas.data());
                          },
                          4.0 * in * out});
  }
  if (blas != nullptr && m == 1) {
    candidates.push_back(
        {absl::StrCat("sgemv ", blas->core()),
         [&](const Weights& w) { blas->MatVec(w.floats.data(), in, out, x.data(), y_blas.data()); },
         4.0 * in * out});
  }
  std::vector<std::function<void(int64_t)>> timed;
  for (const Candidate& c : candidates) {
    timed.push_back([&](int64_t round) { c.run(weights[(round + 1) % weights.size()]); });
  }
  FastRandom(m).Fill(x.data(), m * in);
  const std::vector<double> seconds = MedianSeconds(flags, timed);
  if (blas != nullptr) {
    // The bound has the roundings of both sums, each at most in * u times the sum of magnitudes,
    // which is below `in`.
    const double limit = 2.0 * in * 0x1p-24 * in;
    const double worst = WorstDifference(y, y_blas);
    if (!(worst <= limit)) {
      return absl::InternalError(absl::StrCat("results differ by ", worst, " at m = ", m));
    }
  }
  const double flops = 2.0 * m * in * out;
  for (size_t i = 0; i < candidates.size(); ++i) {
    report.Row()
        .Number("m", static_cast<double>(m), 0)
        .Text("what", candidates[i].name)
        .Text("weights", i == 0 ? DTypeName(layer.dtype) : "F32")
        .Number("threads", static_cast<double>(layer.threads), 0)
        .Number("ms", seconds[i] * 1e3, 3)
        .Number("gflops", flops / seconds[i] * 1e-9, 1)
        .Number("weight_gbytes_per_s", candidates[i].weight_bytes / seconds[i] * 1e-9, 1)
        .Number("tessera_speedup", seconds[i] / seconds[0], 2);
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, Report& report) {
  if (flags.Text("device") == "cuda") return RunDeviceGemm(flags, report);
  if (flags.Text("device") != "cpu") return absl::InvalidArgumentError("--device is cpu or cuda");
  const int64_t in = flags.Number("in"), out = flags.Number("out");
  const int threads = static_cast<int>(flags.Number("threads"));
  const std::string& isa = flags.Text("isa");
  ASSIGN_OR_RETURN(const DType dtype, ParseDType(flags.Text("dtype")));
  ASSIGN_OR_RETURN(const std::unique_ptr<Ops> ops,
                   MakeBackend("cpu", {.cpu_threads = threads, .cpu_isa = isa}));
  const auto blas = OpenBlas::Open(isa == "avx2" ? "Haswell" : "", threads);
  if (!blas.ok()) {
    std::fprintf(stderr, "gemm: comparison skipped: %s\n",
                 std::string(blas.status().message()).c_str());
  }
  // Each run takes the next copy, because a decode step finds no weights in the cache.
  std::vector<Weights> weights;
  for (int64_t i = 0; i < flags.Number("copies"); ++i) {
    weights.push_back(MakeWeights(*ops, in, out, dtype, i + 1, blas.ok()));
  }
  const Layer layer{*ops,  blas.ok() ? &*blas : nullptr,           in, out, threads,
                    dtype, isa.empty() ? CpuInstructionSet() : isa};
  for (const int64_t m : flags.Numbers("m")) {
    RETURN_IF_ERROR(RunRows(flags, layer, weights, m, report));
  }
  return absl::OkStatus();
}

}  // namespace

Command GemmCommand() {
  return {.name = "gemm",
          .help = "y = x W^T: on the CPU against OpenBLAS, on CUDA against cublasLt's bare product",
          .flags = {{"device", "cpu", "cpu or cuda"},
                    {"precise", "0", "1: CUDA keeps float accuracy whatever m"},
                    {"m", "1,16,256", "rows of x"},
                    {"in", "4096", "columns of W"},
                    {"out", "4096", "rows of W"},
                    {"dtype", "BF16", "of our weights: F32, F16 or BF16"},
                    {"threads", "2", "of both"},
                    {"isa", "", "avx512, avx2 (OpenBLAS then too) or scalar; empty: the best"},
                    {"copies", "8", "different weights, used in turn, so that none is cached"}},
          .run = Run};
}

}  // namespace tessera::bench
