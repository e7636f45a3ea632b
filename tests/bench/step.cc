// tessera_bench step: one decode step of LLaVA-1.5-7B's language model on a GPU with random
// weights, compared with its roofline: the same products by cublasLt alone, plus the stored KV at
// the rate at which the device reads memory.
//
// It measures device time from the embedding to the logits. Planning, copies of the batch and
// sampling are the engine's and not included. Layers share pages, so that any batch fits, but too
// many for any cache.
#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/model/llama.h"
#include "tests/bench/device_cache.h"
#include "tests/bench/repeated_weights.h"

namespace tessera::bench {
namespace {

float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

// The products of one step with the weights of one layer, which do not stay in any cache.
struct Products {
  struct One {
    int64_t in, out, times;
    Linear linear;
  };
  std::vector<One> all;

  Products(Ops& ops, TensorSource& source, const LlamaConfig& c) {
    const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
    const auto add = [&](int64_t in, int64_t out, int64_t times) {
      const auto tensor = source.Find("w", {out, in});
      all.push_back(
          {in, out, times, ops.MakeLinear({{tensor->data, nullptr, out}}, in, DType::kBF16)});
    };
    add(c.hidden, q + 2 * kv, c.layers);
    add(q, c.hidden, c.layers);
    add(c.hidden, 2 * c.intermediate, c.layers);
    add(c.intermediate, c.hidden, c.layers);
    add(c.hidden, c.vocab, 1);
  }
};

absl::StatusOr<LlamaConfig> ConfigFrom(const Flags& flags) {
  LlamaConfig config;  // LLaVA-1.5-7B: Vicuna-7B with 64 more words
  config.vocab = 32064;
  config.max_positions = 16384;  // contexts beyond the trained length take as long
  if (flags.Text("model") == "13b") {
    config.hidden = 5120, config.intermediate = 13824, config.layers = config.heads = 40;
    config.kv_heads = 40;
  } else if (flags.Text("model") != "7b") {
    return absl::InvalidArgumentError("--model is 7b or 13b");
  }
  return config;
}

struct Shape {
  int64_t batch = 0, context = 0;
};

absl::StatusOr<std::vector<Shape>> ParseShapes(const std::string& text, int64_t most_positions) {
  std::vector<Shape> shapes;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<std::string> numbers = absl::StrSplit(part, 'x');
    Shape s;
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &s.batch) ||
        !absl::SimpleAtoi(numbers[1], &s.context) || s.batch <= 0 || s.context <= 0 ||
        s.context > most_positions) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not BATCHxCONTEXT"));
    }
    shapes.push_back(s);
  }
  return shapes;
}

// The model and the memory that all rows of the report use.
struct Fixture {
  static constexpr int64_t kReadBytes = int64_t{1} << 30;

  Device& device;
  Ops& ops;
  const LlamaConfig& config;
  LlamaDecoder& decoder;
  const Products& products;
  Buffer large;          // [kReadBytes], for the read rate
  Buffer in, in16, out;  // a product's input in float32 and bfloat16, and its output

  Fixture(Device& device, const LlamaConfig& config, LlamaDecoder& decoder,
          const Products& products, int64_t most_rows)
      : device(device),
        ops(device.ops()),
        config(config),
        decoder(decoder),
        products(products),
        large(ops.Allocate(kReadBytes)),
        in(ops.Allocate(most_rows * 2 * config.intermediate * 4)),
        in16(ops.Allocate(most_rows * 2 * config.intermediate * 2)),
        out(ops.Allocate(most_rows * std::max<int64_t>(config.vocab, 2 * config.intermediate) *
                         4)) {
    device.Fill(large.get(), DType::kF32, kReadBytes / 4, 7);
    device.Fill(in.get(), DType::kF32, most_rows * 2 * config.intermediate, 5);
    device.Fill(in16.get(), DType::kBF16, most_rows * 2 * config.intermediate, 5);
  }
  int64_t qkv_cols() const { return int64_t{config.heads + 2 * config.kv_heads} * config.head_dim; }
};

// One decode step's batch on the device, over a cache that all layers share.
struct StepBatch {
  Buffer ids, positions, rows, ones, qkv;
  DeviceBatch step;
  uint32_t formats;

  StepBatch(const Fixture& f, const DeviceCache& cache, int64_t cache_layers,
            const CacheLayout& layout, const Shape& shape)
      : formats(layout.formats()) {
    std::vector<int32_t> numbers(shape.batch);
    std::iota(numbers.begin(), numbers.end(), 0);
    ids = Upload(f.ops, numbers);
    rows = Upload(f.ops, numbers);
    positions =
        Upload(f.ops, std::vector<int32_t>(shape.batch, static_cast<int32_t>(shape.context - 1)));
    ones = Upload(f.ops, std::vector<uint8_t>(shape.batch, 1));
    qkv = f.ops.Allocate(shape.batch * f.qkv_cols() * 4);
    f.device.Fill(qkv.get(), DType::kF32, shape.batch * f.qkv_cols(), 5);
    step.rows = step.sequences = step.logit_rows = shape.batch;
    step.ids = reinterpret_cast<const int32_t*>(ids.get());
    step.positions = reinterpret_cast<const int32_t*>(positions.get());
    step.query_begin = cache.query_begin();
    step.logit_row = reinterpret_cast<const int32_t*>(rows.get());
    if (layout.low_bits()) step.transform_rows = step.transform_sequences = ones.get();
    for (int64_t i = 0; i < f.config.layers; ++i) {
      step.slots.push_back(cache.last_slots(i % cache_layers));
      step.kv.push_back(cache.Layer(i % cache_layers));
    }
  }
  AttentionMetadata metadata(const LlamaConfig& config) const {
    return {step.query_begin, step.sequences, config.heads, step.kv.data(),
            config.layers,    formats,        step.rows,    1};
  }
};

// Median seconds of a step, and the time that the host takes to launch it.
struct Times {
  double step, attention, matmul, cublas, read;  // on the device
  double launching;
};

Times Measure(const Flags& flags, const Fixture& f, const StepBatch& batch) {
  const DeviceBatch& step = batch.step;
  const AttentionMetadata metadata = batch.metadata(f.config);
  Times times{};
  const auto forward = [&](int64_t) {
    const auto begin = std::chrono::steady_clock::now();
    f.ops.PlanAttention(metadata);
    f.decoder.Embed(step);
    f.decoder.Forward(step);
    times.launching =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const auto attention = [&](int64_t) {
    f.ops.PlanAttention(metadata);
    for (int64_t i = 0; i < f.config.layers; ++i) {
      f.ops.PagedAttention(Floats(batch.qkv), step.query_begin, step.transform_sequences,
                           step.sequences, f.config.heads, step.kv[i], Floats(f.out));
    }
  };
  const auto for_each_product = [&](const auto& run) {
    for (const Products::One& p : f.products.all) {
      for (int64_t i = 0; i < p.times; ++i) run(p);
    }
  };
  const std::vector<double> seconds = f.device.MedianSeconds(
      flags, {forward, attention,
              [&](int64_t) {
                for_each_product([&](const Products::One& p) {
                  f.ops.MatMul(p.linear, Floats(f.in), step.rows, Floats(f.out));
                });
              },
              [&](int64_t) {
                for_each_product([&](const Products::One& p) {
                  f.device.Product(step.rows, p.out, p.in, f.in16.get(), p.linear.weight.get(),
                                   f.out.get());
                });
              },
              [&](int64_t) { f.device.Read(f.large.get(), Fixture::kReadBytes); }});
  times.step = seconds[0], times.attention = seconds[1], times.matmul = seconds[2];
  times.cublas = seconds[3], times.read = seconds[4];
  return times;
}

absl::Status RunCase(const Flags& flags, const Fixture& f, const Shape& shape,
                     const std::string& runs, Report& report) {
  ASSIGN_OR_RETURN(const CacheLayout parsed, CacheLayout::Parse(runs));
  const CacheLayout layout = parsed.At(shape.context);
  if (layout.runs.empty() || layout.runs.back().format != Format::kRaw16) {
    return absl::InvalidArgumentError("a step stores at 16 bit: the last run must be raw16");
  }
  const KvGeometry geometry = f.config.kv_geometry();
  const int64_t layer_bytes = shape.batch * layout.Bytes(geometry);
  const int64_t cache_layers = CeilDiv(kRotatedBytes, layer_bytes) + 1;
  const DeviceCache cache(f.device, geometry, cache_layers, shape.batch, 1, layout);
  const StepBatch batch(f, cache, cache_layers, layout, shape);
  const Times times = Measure(flags, f, batch);
  const double kv_seconds = static_cast<double>(layer_bytes * f.config.layers) /
                            (static_cast<double>(Fixture::kReadBytes) / times.read);
  const double roofline = times.cublas + kv_seconds;
  report.Row()
      .Text("model", flags.Text("model"))
      .Text("shape", absl::StrCat(shape.batch, "x", shape.context))
      .Text("runs", layout.text)
      .Number("step_ms", times.step * 1e3, 2)
      .Number("roofline_ms", roofline * 1e3, 2)
      .Number("of_roofline", times.step / roofline, 2)
      .Number("cublas_ms", times.cublas * 1e3, 2)
      .Number("kv_ms", kv_seconds * 1e3, 2)
      .Number("matmul_ms", times.matmul * 1e3, 2)
      .Number("attention_ms", times.attention * 1e3, 2)
      .Number("rest_ms", (times.step - times.attention - times.matmul) * 1e3, 2)
      .Number("launching_ms", times.launching * 1e3, 2)
      .Number("tokens_per_s", static_cast<double>(shape.batch) / times.step, 0);
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  Ops& ops = device->ops();
  ASSIGN_OR_RETURN(const LlamaConfig config, ConfigFrom(flags));
  ASSIGN_OR_RETURN(const std::vector<Shape> shapes,
                   ParseShapes(flags.Text("shape"), config.max_positions));
  RepeatedWeights weights(std::max<int64_t>(config.vocab, 2 * config.intermediate) * config.hidden);
  int64_t most = 0;
  for (const Shape& shape : shapes) most = std::max(most, shape.batch);
  ASSIGN_OR_RETURN(const std::unique_ptr<LlamaDecoder> decoder,
                   LlamaDecoder::Load(config, weights, ops, static_cast<int>(most)));
  const Products products(ops, weights, config);
  const Fixture fixture(*device, config, *decoder, products, most);
  for (const Shape& shape : shapes) {
    for (const absl::string_view runs : absl::StrSplit(flags.Text("layout"), ',')) {
      RETURN_IF_ERROR(RunCase(flags, fixture, shape, std::string(runs), report));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Command StepCommand() {
  return {.name = "step",
          .help = "a decode step of LLaVA-1.5's language model on a GPU against its roofline",
          .flags = {{"model", "7b", "7b or 13b"},
                    {"shape", "1x620,32x620,128x620,256x450", "BATCHxCONTEXT"},
                    {"layout", "raw16,token2+raw16:128",
                     "runs of a sequence, as of attention; the last raw16. Low-bit ones are"
                     " transformed, as akvq's are"}},
          .run = Run};
}

}  // namespace tessera::bench
