// tessera_bench attention: paged attention of the CPU backend, decode over each format and prefill.
//
// Decode is bound by reading K and V. Its roofline is the rate at which the same threads read
// memory, and its rival is the same tokens in RAW16 pages. Prefill is bound by arithmetic; its
// roofline is a large matrix product.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/half.h"
#include "kernels/backend/backend.h"
#include "kernels/layout/quantize.h"
#include "tests/bench/bench.h"
#include "tests/bench/device.h"

namespace tessera::bench {
namespace {

struct Shape {
  Format format;
  int64_t batch, context, rows;  // rows: query rows of each sequence
};

// Layers of sequences over shuffled pages of one arena, all pages alike. If the format has headers,
// a sequence is one segment with CalibQuant's logit map, and all segments share one header.
class Cache {
 public:
  Cache(Ops& ops, const KvGeometry& g, int64_t layers, const Shape& shape) : geometry_(g) {
    const int64_t pages = CeilDiv<int64_t>(shape.context, PageTokens(shape.format));
    const int64_t all = layers * shape.batch * pages, page_bytes = PageBytes(shape.format, g);
    arena_ = ops.Allocate(all * page_bytes + PageBytes(Format::kHeader, g));
    FastRandom random(1);
    uint8_t* header = arena_.get() + all * page_bytes;
    const std::vector<uint8_t> page = RandomPage(ops, shape.format, random, header);
    for (int64_t i = 0; i < all; ++i) {
      std::memcpy(arena_.get() + i * page_bytes, page.data(), page_bytes);
      pages_.push_back(static_cast<PageId>(i * page_bytes / kPageUnitBytes));
    }
    for (int64_t i = all - 1; i > 0; --i) {
      const auto j = static_cast<int64_t>((random.Next() + 1) / 2 * static_cast<float>(i));
      std::swap(pages_[i], pages_[j]);
    }
    for (int64_t s = 0; s < shape.batch; ++s) {
      run_begin_.push_back(static_cast<int32_t>(s));
      query_begin_.push_back(static_cast<int32_t>(s * shape.rows));
      KvRun run = {shape.format, static_cast<int32_t>(s * pages),
                   static_cast<int32_t>(shape.context)};
      if (HasHeader(shape.format)) {
        run.header = static_cast<PageId>(all * page_bytes / kPageUnitBytes);
        run.map = {.raise = 0, .lower = 3};
      }
      runs_.push_back(run);
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
  // Fills a page with random tokens, quantized; also fills `header` if the format has one.
  std::vector<uint8_t> RandomPage(Ops& ops, Format format, FastRandom& random,
                                  uint8_t* header) const {
    const int raw = PageTokens(Format::kRaw16), tokens = PageTokens(format);
    const int64_t bytes = PageBytes(format, geometry_);
    const int64_t raw_bytes = PageBytes(Format::kRaw16, geometry_);
    const int64_t header_at = bytes + tokens / raw * raw_bytes;
    const int64_t header_bytes = PageBytes(Format::kHeader, geometry_);
    const Buffer arena = ops.Allocate(header_at + header_bytes);
    const PageId header_page =
        HasHeader(format) ? static_cast<PageId>(header_at / kPageUnitBytes) : kNoPage;
    auto* halves = reinterpret_cast<uint16_t*>(arena.get() + bytes);
    for (int64_t i = 0; i < tokens / raw * raw_bytes / 2; ++i) {
      halves[i] = FloatToHalf(random.Next());
    }
    std::vector<TokenMove> moves;
    for (int t = 0; t < tokens; ++t) {
      const auto from = static_cast<PageId>((bytes + t / raw * raw_bytes) / kPageUnitBytes);
      moves.push_back(
          {{from, static_cast<uint32_t>(t % raw)}, {0, static_cast<uint32_t>(t)}, header_page});
    }
    ops.MoveTokens(arena.get(), geometry_, format, {}, moves.data(), tokens);
    std::memcpy(header, arena.get() + header_at, header_bytes);
    return {arena.get(), arena.get() + bytes};
  }

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

absl::StatusOr<std::vector<Format>> ParseFormats(const std::string& text) {
  std::vector<Format> formats;
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::optional<Format> format = FormatFromName(name);
    if (!format || !HoldsTokens(*format)) {
      return absl::InvalidArgumentError(absl::StrCat("unknown format \"", name, "\""));
    }
    formats.push_back(*format);
  }
  return formats;
}

// Returns the groups of shapes that are timed in turn. A group's first shape is RAW16, the others'
// rival.
std::vector<std::vector<Shape>> GroupsOf(const Flags& flags, const std::vector<Format>& formats) {
  std::vector<std::vector<Shape>> groups;
  for (int64_t context : flags.Numbers("context")) {
    for (int64_t batch : flags.Numbers("batch")) {
      groups.push_back({{Format::kRaw16, batch, context, 1}});
      for (Format f : formats) {
        if (f != Format::kRaw16) groups.back().push_back({f, batch, context, 1});
      }
    }
    const int64_t rows = std::min(context, flags.Number("prefill_rows"));
    groups.push_back({{Format::kRaw16, 1, context, rows}});
  }
  return groups;
}

// The rooflines: 512 MiB read once; a 4096-wide product of 256 rows.
struct Rooflines {
  static constexpr int64_t kReadBytes = int64_t{512} << 20, kWide = 4096, kRows = 256;
  MemoryReader reader;
  std::vector<float> x, y;
  Linear linear;

  Rooflines(Ops& ops, int threads)
      : reader(ops, kReadBytes, threads), x(kRows * kWide), y(kRows * kWide) {
    std::vector<float> weight(kWide * kWide);
    FastRandom(1).Fill(weight.data(), kWide * kWide);
    FastRandom(2).Fill(x.data(), kRows * kWide);
    linear = ops.MakeLinear({{weight.data(), nullptr, kWide}}, kWide, DType::kF32);
  }
};

// The seconds of one group: both rooflines', then each shape's.
std::vector<double> TimeGroup(const Flags& flags, Ops& ops, const KvGeometry& geometry,
                              int64_t heads, const std::vector<Shape>& group,
                              Rooflines& rooflines) {
  const int64_t rows = group[0].batch * group[0].rows, dim = geometry.head_dim;
  std::vector<float> qkv(rows * (heads + 2 * geometry.kv_heads) * dim), out(rows * heads * dim);
  FastRandom(3).Fill(qkv.data(), static_cast<int64_t>(qkv.size()));
  std::vector<std::function<void(int64_t)>> candidates = {
      [&](int64_t) { rooflines.reader.Read(); },
      [&](int64_t) {
        ops.MatMul(rooflines.linear, rooflines.x.data(), Rooflines::kRows, rooflines.y.data());
      }};
  for (const Shape& shape : group) {
    const auto cache = std::make_shared<Cache>(ops, geometry, geometry.layers, shape);
    candidates.push_back([&, cache](int64_t) {
      for (int64_t layer = 0; layer < geometry.layers; ++layer) {
        ops.PagedAttention(qkv.data(), cache->query_begin(), nullptr, shape.batch, heads,
                           cache->Layer(layer), out.data());
      }
    });
  }
  return MedianSeconds(flags, candidates);
}

absl::Status Run(const Flags& flags, Report& report) {
  if (flags.Text("device") == "cuda") return RunDeviceAttention(flags, report);
  if (flags.Text("device") != "cpu") return absl::InvalidArgumentError("--device is cpu or cuda");
  const int threads = static_cast<int>(flags.Number("threads"));
  const std::string& isa = flags.Text("isa");
  ASSIGN_OR_RETURN(const std::unique_ptr<Ops> ops,
                   MakeBackend("cpu", {.cpu_threads = threads, .cpu_isa = isa}));
  const KvGeometry geometry{
      .layers = static_cast<int>(flags.Number("layers")),
      .kv_heads = static_cast<int>((flags.Text("kv_heads").empty() ? 8 : flags.Number("kv_heads"))),
      .head_dim = static_cast<int>(flags.Number("head_dim"))};
  const int64_t heads = geometry.kv_heads * flags.Number("group");
  ASSIGN_OR_RETURN(const std::vector<Format> formats, ParseFormats(flags.Text("format")));
  Rooflines rooflines(*ops, threads);
  constexpr int64_t kWide = Rooflines::kWide;
  for (const std::vector<Shape>& group : GroupsOf(flags, formats)) {
    const std::vector<double> seconds = TimeGroup(flags, *ops, geometry, heads, group, rooflines);
    const double read_rate = Rooflines::kReadBytes / seconds[0];
    const double matmul = 2.0 * Rooflines::kRows * kWide * kWide / seconds[1];
    for (size_t i = 0; i < group.size(); ++i) {
      const Shape& shape = group[i];
      const double time = seconds[2 + i];
      // Row j of n sees context - (n - 1 - j) tokens.
      const double seen = static_cast<double>(shape.context) - (shape.rows - 1) / 2.0;
      const double flops = 4.0 * seen *
                           static_cast<double>(shape.batch * shape.rows * heads *
                                               geometry.head_dim * geometry.layers);
      const double page_bytes =
          static_cast<double>(shape.batch * geometry.layers * PageBytes(shape.format, geometry) *
                              CeilDiv<int64_t>(shape.context, PageTokens(shape.format)));
      report.Row()
          .Text("what", shape.rows == 1 ? "decode" : "prefill")
          .Text("isa", isa.empty() ? CpuInstructionSet() : isa)
          .Text("format", FormatName(shape.format))
          .Number("batch", static_cast<double>(shape.batch), 0)
          .Number("context", static_cast<double>(shape.context), 0)
          .Number("rows", static_cast<double>(shape.rows), 0)
          .Number("ms_per_layer", time / geometry.layers * 1e3, 3)
          .Number("of_raw16", seconds[2] / time, 2)
          .Number("page_gbytes_per_s", page_bytes / time * 1e-9, 1)
          .Number("of_memory_read", page_bytes / time / read_rate, 2)
          .Number("gflops", flops / time * 1e-9, 1)
          .Number("of_matmul", flops / time / matmul, 2);
    }
  }
  return absl::OkStatus();
}

}  // namespace

Command AttentionCommand() {
  return {
      .name = "attention",
      .help = "paged attention against memory reads and a matrix product",
      .flags = {{"device", "cpu", "cpu or cuda"},
                {"decode", "64x1024,64x4096,1x8192,4x2048", "CUDA: decode, BATCHxCONTEXT"},
                {"prefill", "2x2432", "CUDA: whole prompts, BATCHxCONTEXT"},
                {"layout", "raw16,token8,token4,token2,token1,kivi4,kivi2,kivi1,token2+raw16:128",
                 "CUDA: runs of a decode step's sequences, FORMAT[:TOKENS] joined by +; of_parts:"
                 " the runs' times alone over the whole's"},
                {"format", "raw16,token8,token4,token2,token1,kivi4,kivi2,kivi1",
                 "CPU: page formats of a decode step; of_raw16: tokens/s over those of raw16"},
                {"context", "600,2048", "CPU: stored tokens per sequence"},
                {"batch", "1,16", "CPU: sequences of a decode step"},
                {"prefill_rows", "512", "CPU: query rows of the prefill chunk"},
                {"kv_heads", "", "empty: 8 on the CPU, 32 on CUDA"},
                {"group", "1", "query heads per KV head"},
                {"head_dim", "128", ""},
                {"layers", "8", "CPU: distinct layers, one after the other"},
                {"threads", "2", "CPU"},
                {"isa", "", "avx512, avx2 or scalar; empty: the best"}},
      .run = Run};
}

}  // namespace tessera::bench
