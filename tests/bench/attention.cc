// tessera_bench attention: paged attention of the CPU backend, decode and prefill.
//
// Decode is bound by reading K and V, so its ceiling is the rate at which the same threads read
// memory; prefill is bound by arithmetic, so its ceiling is a large matrix product.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/half.h"
#include "tests/bench/bench.h"

namespace tessera::bench {
namespace {

constexpr int kTokens = PageTokens(Format::kRaw16);

struct Shape {
  int64_t batch, context, rows;  // rows: query rows of each sequence
};

// Layers of sequences over shuffled pages of one arena.
class Cache {
 public:
  Cache(Ops& ops, const KvGeometry& g, int64_t layers, const Shape& shape) : geometry_(g) {
    const int64_t pages = CeilDiv<int64_t>(shape.context, kTokens);
    const int64_t all = layers * shape.batch * pages, page_bytes = PageBytes(Format::kRaw16, g);
    arena_ = ops.Allocate(all * page_bytes);
    auto* halves = reinterpret_cast<uint16_t*>(arena_.get());
    FastRandom random(1);
    for (int64_t i = 0; i < all * page_bytes / 2; ++i) halves[i] = FloatToHalf(random.Next());
    for (int64_t i = 0; i < all; ++i) {
      pages_.push_back(static_cast<PageId>(i * page_bytes / kPageUnitBytes));
    }
    for (int64_t i = all - 1; i > 0; --i) {
      const auto j = static_cast<int64_t>((random.Next() + 1) / 2 * static_cast<float>(i));
      std::swap(pages_[i], pages_[j]);
    }
    for (int64_t s = 0; s < shape.batch; ++s) {
      run_begin_.push_back(static_cast<int32_t>(s));
      query_begin_.push_back(static_cast<int32_t>(s * shape.rows));
      runs_.push_back(
          {Format::kRaw16, static_cast<int32_t>(s * pages), static_cast<int32_t>(shape.context)});
    }
    run_begin_.push_back(static_cast<int32_t>(shape.batch));
    query_begin_.push_back(static_cast<int32_t>(shape.batch * shape.rows));
    pages_per_layer_ = shape.batch * pages;
  }
  KvLayerView Layer(int64_t layer) const {
    return {arena_.get(), geometry_, pages_.data() + layer * pages_per_layer_, runs_.data(),
            run_begin_.data()};
  }
  const int32_t* query_begin() const { return query_begin_.data(); }

 private:
  KvGeometry geometry_;
  Buffer arena_;
  std::vector<PageId> pages_;
  std::vector<KvRun> runs_;
  std::vector<int32_t> run_begin_, query_begin_;
  int64_t pages_per_layer_;
};

// Reads `bytes` of memory with `threads` threads.
class MemoryReader {
 public:
  MemoryReader(Ops& ops, int64_t bytes, int threads)
      : words_(bytes / 8), threads_(threads), memory_(ops.Allocate(bytes)) {}
  void Read() {
    const auto* p = reinterpret_cast<const uint64_t*>(memory_.get());
    const int64_t part = words_ / threads_;
    std::vector<std::thread> threads;
    for (int t = 0; t < threads_; ++t) {
      threads.emplace_back([this, p, part, t] {
        uint64_t sums[8] = {};
        for (int64_t i = t * part; i + 8 <= (t + 1) * part; i += 8) {
          for (int j = 0; j < 8; ++j) sums[j] += p[i + j];
        }
        for (uint64_t s : sums) sink_ += s;
      });
    }
    for (std::thread& t : threads) t.join();
  }

 private:
  int64_t words_;
  int threads_;
  Buffer memory_;
  std::atomic<uint64_t> sink_{0};
};

absl::Status Run(const Flags& flags, Report& report) {
  const int threads = static_cast<int>(flags.Number("threads"));
  const int64_t layers = flags.Number("layers");
  const std::string& isa = flags.Text("isa");
  ASSIGN_OR_RETURN(const std::unique_ptr<Ops> ops,
                   MakeBackend("cpu", {.cpu_threads = threads, .cpu_isa = isa}));
  const KvGeometry geometry{.layers = static_cast<int>(layers),
                            .kv_heads = static_cast<int>(flags.Number("kv_heads")),
                            .head_dim = static_cast<int>(flags.Number("head_dim"))};
  const int64_t heads = geometry.kv_heads * flags.Number("group"), dim = geometry.head_dim;

  std::vector<Shape> shapes;
  for (int64_t context : flags.Numbers("context")) {
    for (int64_t batch : flags.Numbers("batch")) shapes.push_back({batch, context, 1});
    shapes.push_back({1, context, std::min(context, flags.Number("prefill_rows"))});
  }
  // Ceilings: 512 MiB read once; a 4096-wide product of 256 rows.
  constexpr int64_t kReadBytes = int64_t{512} << 20, kWide = 4096, kRows = 256;
  MemoryReader reader(*ops, kReadBytes, threads);
  std::vector<float> weight(kWide * kWide), x(kRows * kWide), y(kRows * kWide);
  FastRandom(1).Fill(weight.data(), kWide * kWide);
  FastRandom(2).Fill(x.data(), kRows * kWide);
  const Linear linear = ops->MakeLinear({{weight.data(), nullptr, kWide}}, kWide, DType::kF32);

  for (const Shape& shape : shapes) {
    const Cache cache(*ops, geometry, layers, shape);
    const int64_t rows = shape.batch * shape.rows;
    std::vector<float> qkv(rows * (heads + 2 * geometry.kv_heads) * dim), out(rows * heads * dim);
    FastRandom(3).Fill(qkv.data(), static_cast<int64_t>(qkv.size()));
    const std::vector<double> seconds = MedianSeconds(
        flags, {[&](int64_t) {
                  for (int64_t layer = 0; layer < layers; ++layer) {
                    ops->PagedAttention(qkv.data(), cache.query_begin(), nullptr, shape.batch,
                                        heads, cache.Layer(layer), out.data());
                  }
                },
                [&](int64_t) { reader.Read(); },
                [&](int64_t) { ops->MatMul(linear, x.data(), kRows, y.data()); }});
    // Row j of n sees context - (n - 1 - j) tokens.
    const double seen = static_cast<double>(shape.context) - (shape.rows - 1) / 2.0;
    const double flops = 4.0 * seen * static_cast<double>(rows * heads * dim * layers);
    const double kv_bytes =
        4.0 * static_cast<double>(shape.batch * shape.context * geometry.kv_heads * dim * layers);
    const double read_rate = kReadBytes / seconds[1],
                 matmul = 2.0 * kRows * kWide * kWide / seconds[2];
    report.Row()
        .Text("what", shape.rows == 1 ? "decode" : "prefill")
        .Text("isa", isa.empty() ? CpuInstructionSet() : isa)
        .Number("batch", static_cast<double>(shape.batch), 0)
        .Number("context", static_cast<double>(shape.context), 0)
        .Number("rows", static_cast<double>(shape.rows), 0)
        .Number("ms_per_layer", seconds[0] / static_cast<double>(layers) * 1e3, 3)
        .Number("kv_gbytes_per_s", kv_bytes / seconds[0] * 1e-9, 1)
        .Number("of_memory_read", kv_bytes / seconds[0] / read_rate, 2)
        .Number("gflops", flops / seconds[0] * 1e-9, 1)
        .Number("of_matmul", flops / seconds[0] / matmul, 2);
  }
  return absl::OkStatus();
}

}  // namespace

Command AttentionCommand() {
  return {.name = "attention",
          .help = "paged attention of the CPU backend against memory reads and a matrix product",
          .flags = {{"context", "600,4096", "stored tokens per sequence"},
                    {"batch", "1,16", "sequences of a decode step"},
                    {"prefill_rows", "512", "query rows of the prefill chunk"},
                    {"kv_heads", "8", ""},
                    {"group", "1", "query heads per KV head"},
                    {"head_dim", "128", ""},
                    {"layers", "8", "distinct layers, one after the other"},
                    {"threads", "2", ""},
                    {"isa", "", "avx512, avx2 or scalar; empty: the best"}},
          .run = Run};
}

}  // namespace tessera::bench
