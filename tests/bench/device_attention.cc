// tessera_bench attention --device=cuda: paged attention. Decode is compared with the rate at which
// the device reads memory, prefill with a large cublasLt product.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/bench/device_cache.h"

namespace tessera::bench {
namespace {

struct Shape {
  int64_t batch, context, rows;
};

absl::StatusOr<std::vector<Shape>> ParseShapes(const std::string& text, bool prefill) {
  std::vector<Shape> shapes;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::vector<std::string> numbers = absl::StrSplit(part, 'x');
    Shape s{};
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &s.batch) ||
        !absl::SimpleAtoi(numbers[1], &s.context) || s.batch <= 0 || s.context <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not BATCHxCONTEXT"));
    }
    s.rows = prefill ? s.context : 1;
    shapes.push_back(s);
  }
  return shapes;
}

// The least number of consecutive calls, as in a step of LLaVA-1.5-7B: they share the costs of once
// per step (the plan, and the latency of the first launch on an idle device).
constexpr int64_t kStepLayers = 32;

float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

// Attention over its own cache, which is so large that no layer is in the L2 cache.
struct Candidate {
  DeviceCache cache;
  Shape shape;
  uint32_t formats;
  std::vector<KvLayerView> layers;

  // Runs all calls, planned as a step of the engine does.
  void Run(Ops& ops, int64_t heads, const Buffer& qkv, const Buffer& out) const {
    ops.PlanAttention({cache.query_begin(), shape.batch, heads, layers.data(),
                       static_cast<int64_t>(layers.size()), formats, shape.batch * shape.rows,
                       shape.rows});
    for (const KvLayerView& layer : layers) {
      ops.PagedAttention(Floats(qkv), cache.query_begin(), nullptr, shape.batch, heads, layer,
                         Floats(out));
    }
  }
};
Candidate MakeCandidate(Device& device, KvGeometry& geometry, const Shape& shape,
                        const CacheLayout& layout) {
  const int64_t layers = CeilDiv(kRotatedBytes, shape.batch * layout.Bytes(geometry)) + 1;
  geometry.layers = static_cast<int>(layers);
  Candidate made{DeviceCache(device, geometry, layers, shape.batch, shape.rows, layout),
                 shape,
                 layout.formats(),
                 {}};
  for (int64_t l = 0; l < std::max(layers, kStepLayers); ++l) {
    made.layers.push_back(made.cache.Layer(l % layers));
  }
  return made;
}

absl::StatusOr<std::vector<std::pair<Shape, CacheLayout>>> ParseCases(const Flags& flags) {
  ASSIGN_OR_RETURN(const std::vector<Shape> decodes, ParseShapes(flags.Text("decode"), false));
  ASSIGN_OR_RETURN(const std::vector<Shape> prefills, ParseShapes(flags.Text("prefill"), true));
  std::vector<std::pair<Shape, CacheLayout>> cases;
  for (const Shape& shape : decodes) {
    for (const absl::string_view text : absl::StrSplit(flags.Text("layout"), ',')) {
      ASSIGN_OR_RETURN(const CacheLayout layout, CacheLayout::Parse(std::string(text)));
      cases.push_back({shape, layout.At(shape.context)});
    }
  }
  for (const Shape& shape : prefills) {
    cases.push_back({shape, {"raw16", {{Format::kRaw16, shape.context}}}});
  }
  return cases;
}

// The rivals of attention: a read of memory and a large product.
struct Rivals {
  static constexpr int64_t kReadBytes = int64_t{1} << 30, kSide = 8192;
  Buffer large, a, b, c;

  explicit Rivals(Device& device)
      : large(device.ops().Allocate(kReadBytes)),
        a(device.ops().Allocate(kSide * kSide * 2)),
        b(device.ops().Allocate(kSide * kSide * 2)),
        c(device.ops().Allocate(kSide * kSide * 2)) {
    device.Fill(large.get(), DType::kF32, kReadBytes / 4, 7);
    device.Fill(a.get(), DType::kBF16, kSide * kSide, 1);
    device.Fill(b.get(), DType::kBF16, kSide * kSide, 2);
  }
};

void RunCase(const Flags& flags, Device& device, KvGeometry& geometry, const Rivals& rivals,
             const Shape& shape, const CacheLayout& layout, Report& report) {
  Ops& ops = device.ops();
  const int64_t heads = geometry.kv_heads * flags.Number("group"), dim = geometry.head_dim;
  const int64_t rows = shape.batch * shape.rows;
  const int64_t qkv_floats = rows * (heads + 2 * geometry.kv_heads) * dim;
  const Buffer qkv = ops.Allocate(qkv_floats * 4), out = ops.Allocate(rows * heads * dim * 4);
  device.Fill(qkv.get(), DType::kF32, qkv_floats, 5);
  // The whole layout and, if it has several runs, each of them alone.
  std::vector<Candidate> candidates;
  candidates.push_back(MakeCandidate(device, geometry, shape, layout));
  for (const CacheLayout::Run& run : layout.runs) {
    if (layout.runs.size() == 1) break;
    candidates.push_back(MakeCandidate(device, geometry, shape, {"", {run}}));
  }
  constexpr int64_t kSide = Rivals::kSide;
  std::vector<std::function<void(int64_t)>> timed = {
      [&](int64_t) { device.Read(rivals.large.get(), Rivals::kReadBytes); },
      [&](int64_t) {
        device.Product(kSide, kSide, kSide, rivals.a.get(), rivals.b.get(), rivals.c.get());
      }};
  for (const Candidate& each : candidates) {
    timed.push_back([&](int64_t) { each.Run(ops, heads, qkv, out); });
  }
  const std::vector<double> seconds = device.MedianSeconds(flags, timed);
  const auto layer_seconds = [&](size_t i) {
    return seconds[2 + i] / static_cast<double>(candidates[i].layers.size());
  };
  const double whole = layer_seconds(0);
  double parts = 0;
  for (size_t i = 1; i < candidates.size(); ++i) parts += layer_seconds(i);
  const double seen = static_cast<double>(shape.context) - (shape.rows - 1) / 2.0;
  const double flops = 4.0 * seen * static_cast<double>(rows * heads * dim);
  const double read_rate = static_cast<double>(Rivals::kReadBytes) / seconds[0];
  const double product_rate = 2.0 * kSide * kSide * kSide / seconds[1];
  const double kv_rate = static_cast<double>(shape.batch * layout.Bytes(geometry)) / whole;
  report.Row()
      .Text("device", device.name())
      .Text("what", shape.rows == 1 ? "decode" : "prefill")
      .Text("shape", absl::StrCat(shape.batch, "x", shape.context))
      .Text("runs", layout.text)
      .Number("us_per_layer", whole * 1e6, 1)
      .Number("kv_gbytes_per_s", kv_rate * 1e-9, 0)
      .Number("memory_gbytes_per_s", read_rate * 1e-9, 0)
      .Number("of_memory_read", kv_rate / read_rate, 3)
      .Number("of_parts", parts / whole, 3)
      .Number("tflops", flops / whole * 1e-12, 1)
      .Number("cublas_tflops", product_rate * 1e-12, 0)
      .Number("of_cublas", flops / whole / product_rate, 3);
}

}  // namespace

absl::Status RunDeviceAttention(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  ASSIGN_OR_RETURN(const auto cases, ParseCases(flags));
  KvGeometry geometry{
      .kv_heads = static_cast<int>(flags.Text("kv_heads").empty() ? 32 : flags.Number("kv_heads")),
      .head_dim = static_cast<int>(flags.Number("head_dim"))};
  const Rivals rivals(*device);
  for (const auto& [shape, layout] : cases) {
    RunCase(flags, *device, geometry, rivals, shape, layout, report);
  }
  return absl::OkStatus();
}

}  // namespace tessera::bench
