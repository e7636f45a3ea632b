// tessera_bench attention --device=cuda: paged attention, decode against the rate at which the
// device reads memory, prefill against a large cublasLt product.
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/bench/device.h"

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

// Layers of sequences over shuffled pages of one arena, all on the device.
class DeviceCache {
 public:
  DeviceCache(Device& device, const KvGeometry& g, int64_t layers, const Shape& shape)
      : geometry_(g) {
    const int64_t per_sequence = CeilDiv<int64_t>(shape.context, PageTokens(Format::kRaw16));
    const int64_t all = layers * shape.batch * per_sequence;
    const int64_t page_bytes = PageBytes(Format::kRaw16, g);
    arena_ = device.ops().Allocate(all * page_bytes);
    device.Fill(arena_.get(), DType::kF16, all * page_bytes / 2, 3);
    std::vector<PageId> pages(all);
    for (int64_t i = 0; i < all; ++i) {
      pages[i] = static_cast<PageId>(i * page_bytes / kPageUnitBytes);
    }
    FastRandom random(1);
    for (int64_t i = all - 1; i > 0; --i) {
      const auto j = static_cast<int64_t>((random.Next() + 1) / 2 * static_cast<float>(i));
      std::swap(pages[i], pages[j]);
    }
    std::vector<KvRun> runs;
    std::vector<int32_t> run_begin(shape.batch + 1), query_begin(shape.batch + 1);
    std::iota(run_begin.begin(), run_begin.end(), 0);
    for (int64_t s = 0; s < shape.batch; ++s) {
      runs.push_back({Format::kRaw16, static_cast<int32_t>(s * per_sequence),
                      static_cast<int32_t>(shape.context)});
      query_begin[s + 1] = static_cast<int32_t>((s + 1) * shape.rows);
    }
    pages_ = Upload(device.ops(), pages);
    runs_ = Upload(device.ops(), runs);
    run_begin_ = Upload(device.ops(), run_begin);
    query_begin_ = Upload(device.ops(), query_begin);
    pages_per_layer_ = shape.batch * per_sequence;
  }
  KvLayerView Layer(int64_t layer) const {
    return {arena_.get(), geometry_,
            reinterpret_cast<const PageId*>(pages_.get()) + layer * pages_per_layer_,
            reinterpret_cast<const KvRun*>(runs_.get()),
            reinterpret_cast<const int32_t*>(run_begin_.get())};
  }
  const int32_t* query_begin() const {
    return reinterpret_cast<const int32_t*>(query_begin_.get());
  }

 private:
  template <class T>
  static Buffer Upload(Ops& ops, const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    Buffer b = ops.Allocate(bytes);
    ops.CopyToDevice(b.get(), values.data(), bytes);
    return b;
  }

  KvGeometry geometry_;
  Buffer arena_, pages_, runs_, run_begin_, query_begin_;
  int64_t pages_per_layer_ = 0;
};

}  // namespace

absl::Status RunDeviceAttention(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  Ops& ops = device->ops();
  ASSIGN_OR_RETURN(std::vector<Shape> shapes, ParseShapes(flags.Text("decode"), false));
  ASSIGN_OR_RETURN(const std::vector<Shape> prefills, ParseShapes(flags.Text("prefill"), true));
  shapes.insert(shapes.end(), prefills.begin(), prefills.end());
  KvGeometry geometry{
      .kv_heads = static_cast<int>(flags.Text("kv_heads").empty() ? 32 : flags.Number("kv_heads")),
      .head_dim = static_cast<int>(flags.Number("head_dim"))};
  const int64_t heads = geometry.kv_heads * flags.Number("group"), dim = geometry.head_dim;

  constexpr int64_t kReadBytes = int64_t{1} << 30, kSide = 8192;
  const Buffer large = ops.Allocate(kReadBytes);
  device->Fill(large.get(), DType::kF32, kReadBytes / 4, 7);
  const Buffer a = ops.Allocate(kSide * kSide * 2), b = ops.Allocate(kSide * kSide * 2);
  const Buffer c = ops.Allocate(kSide * kSide * 2);
  device->Fill(a.get(), DType::kBF16, kSide * kSide, 1);
  device->Fill(b.get(), DType::kBF16, kSide * kSide, 2);

  for (const Shape& shape : shapes) {
    const int64_t token_bytes = 4 * geometry.kv_heads * dim;
    const int64_t layer_bytes = shape.batch * shape.context * token_bytes;
    const int64_t layers = CeilDiv(kRotatedBytes, layer_bytes) + 1;
    geometry.layers = static_cast<int>(layers);
    const DeviceCache cache(*device, geometry, layers, shape);
    const int64_t rows = shape.batch * shape.rows;
    const int64_t qkv_floats = rows * (heads + 2 * geometry.kv_heads) * dim;
    const Buffer qkv = ops.Allocate(qkv_floats * 4), out = ops.Allocate(rows * heads * dim * 4);
    device->Fill(qkv.get(), DType::kF32, qkv_floats, 5);
    const std::vector<double> seconds = device->MedianSeconds(
        flags, {[&](int64_t) {
                  for (int64_t layer = 0; layer < layers; ++layer) {
                    ops.PagedAttention(reinterpret_cast<const float*>(qkv.get()),
                                       cache.query_begin(), nullptr, shape.batch, heads,
                                       cache.Layer(layer), reinterpret_cast<float*>(out.get()));
                  }
                },
                [&](int64_t) { device->Read(large.get(), kReadBytes); },
                [&](int64_t) { device->Product(kSide, kSide, kSide, a.get(), b.get(), c.get()); }});
    const double layer_seconds = seconds[0] / static_cast<double>(layers);
    const double seen = static_cast<double>(shape.context) - (shape.rows - 1) / 2.0;
    const double flops = 4.0 * seen * static_cast<double>(rows * heads * dim);
    const double read_rate = static_cast<double>(kReadBytes) / seconds[1];
    const double product_rate = 2.0 * kSide * kSide * kSide / seconds[2];
    const double kv_rate = static_cast<double>(layer_bytes) / layer_seconds;
    report.Row()
        .Text("device", device->name())
        .Text("what", shape.rows == 1 ? "decode" : "prefill")
        .Text("shape", absl::StrCat(shape.batch, "x", shape.context))
        .Number("us_per_layer", layer_seconds * 1e6, 1)
        .Number("kv_gbytes_per_s", kv_rate * 1e-9, 0)
        .Number("memory_gbytes_per_s", read_rate * 1e-9, 0)
        .Number("of_memory_read", kv_rate / read_rate, 3)
        .Number("tflops", flops / layer_seconds * 1e-12, 1)
        .Number("cublas_tflops", product_rate * 1e-12, 0)
        .Number("of_cublas", flops / layer_seconds / product_rate, 3);
  }
  return absl::OkStatus();
}

}  // namespace tessera::bench
