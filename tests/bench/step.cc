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

absl::Status Run(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  Ops& ops = device->ops();
  LlamaConfig config;  // LLaVA-1.5-7B: Vicuna-7B with 64 more words
  config.vocab = 32064;
  config.max_positions = 16384;  // contexts beyond the trained length take as long
  if (flags.Text("model") == "13b") {
    config.hidden = 5120, config.intermediate = 13824, config.layers = config.heads = 40;
    config.kv_heads = 40;
  } else if (flags.Text("model") != "7b") {
    return absl::InvalidArgumentError("--model is 7b or 13b");
  }
  const int64_t widest = std::max<int64_t>(config.vocab, 2 * config.intermediate) * config.hidden;
  RepeatedWeights weights(widest);
  std::vector<std::pair<int64_t, int64_t>> shapes;
  int64_t most = 0;
  for (const absl::string_view part : absl::StrSplit(flags.Text("shape"), ',')) {
    const std::vector<std::string> numbers = absl::StrSplit(part, 'x');
    std::pair<int64_t, int64_t> s;
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &s.first) ||
        !absl::SimpleAtoi(numbers[1], &s.second) || s.first <= 0 || s.second <= 0 ||
        s.second > config.max_positions) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not BATCHxCONTEXT"));
    }
    most = std::max(most, s.first);
    shapes.push_back(s);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LlamaDecoder> decoder,
                   LlamaDecoder::Load(config, weights, ops, static_cast<int>(most)));
  const Products products(ops, weights, config);
  constexpr int64_t kReadBytes = int64_t{1} << 30;
  const Buffer large = ops.Allocate(kReadBytes);
  device->Fill(large.get(), DType::kF32, kReadBytes / 4, 7);
  const KvGeometry geometry = config.kv_geometry();
  const int64_t qkv_cols = int64_t{config.heads + 2 * config.kv_heads} * config.head_dim;
  const Buffer in = ops.Allocate(most * 2 * config.intermediate * 4);
  const Buffer out =
      ops.Allocate(most * std::max<int64_t>(config.vocab, 2 * config.intermediate) * 4);
  device->Fill(in.get(), DType::kF32, most * 2 * config.intermediate, 5);
  const Buffer in16 = ops.Allocate(most * 2 * config.intermediate * 2);
  device->Fill(in16.get(), DType::kBF16, most * 2 * config.intermediate, 5);

  for (const auto& [batch, context] : shapes) {
    for (const absl::string_view text : absl::StrSplit(flags.Text("layout"), ',')) {
      ASSIGN_OR_RETURN(const CacheLayout parsed, CacheLayout::Parse(std::string(text)));
      const CacheLayout layout = parsed.At(context);
      if (layout.runs.empty() || layout.runs.back().format != Format::kRaw16) {
        return absl::InvalidArgumentError("a step stores at 16 bit: the last run must be raw16");
      }
      const int64_t layer_bytes = batch * layout.Bytes(geometry);
      const int64_t layers = CeilDiv(kRotatedBytes, layer_bytes) + 1;
      const DeviceCache cache(*device, geometry, layers, batch, 1, layout);
      std::vector<int32_t> ids(batch), positions(batch, static_cast<int32_t>(context - 1)),
          rows(batch);
      for (int64_t i = 0; i < batch; ++i) ids[i] = rows[i] = static_cast<int32_t>(i);
      const Buffer ids_d = Upload(ops, ids), positions_d = Upload(ops, positions);
      const Buffer rows_d = Upload(ops, rows);
      const Buffer ones_d = Upload(ops, std::vector<uint8_t>(batch, 1));
      DeviceBatch step;
      step.rows = step.sequences = step.logit_rows = batch;
      step.ids = reinterpret_cast<const int32_t*>(ids_d.get());
      step.positions = reinterpret_cast<const int32_t*>(positions_d.get());
      step.query_begin = cache.query_begin();
      step.logit_row = reinterpret_cast<const int32_t*>(rows_d.get());
      if (layout.low_bits()) step.transform_rows = step.transform_sequences = ones_d.get();
      for (int64_t i = 0; i < config.layers; ++i) {
        step.slots.push_back(cache.last_slots(i % layers));
        step.kv.push_back(cache.Layer(i % layers));
      }
      const AttentionMetadata metadata{step.query_begin,
                                       batch,
                                       config.heads,
                                       step.kv.data(),
                                       config.layers,
                                       layout.formats(),
                                       batch,
                                       1};
      const Buffer qkv = ops.Allocate(batch * qkv_cols * 4);
      device->Fill(qkv.get(), DType::kF32, batch * qkv_cols, 5);
      double host_seconds = 0;
      const std::vector<double> seconds = device->MedianSeconds(
          flags,
          {[&](int64_t) {
             const auto begin = std::chrono::steady_clock::now();
             ops.PlanAttention(metadata);
             decoder->Embed(step);
             decoder->Forward(step);
             host_seconds =
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
           },
           [&](int64_t) {
             ops.PlanAttention(metadata);
             for (int64_t i = 0; i < config.layers; ++i) {
               ops.PagedAttention(Floats(qkv), step.query_begin, step.transform_sequences, batch,
                                  config.heads, step.kv[i], Floats(out));
             }
           },
           [&](int64_t) {
             for (const Products::One& p : products.all) {
               for (int64_t i = 0; i < p.times; ++i) {
                 ops.MatMul(p.linear, Floats(in), batch, Floats(out));
               }
             }
           },
           [&](int64_t) {
             for (const Products::One& p : products.all) {
               for (int64_t i = 0; i < p.times; ++i) {
                 device->Product(batch, p.out, p.in, in16.get(), p.linear.weight.get(), out.get());
               }
             }
           },
           [&](int64_t) { device->Read(large.get(), kReadBytes); }});
      const double kv_seconds = static_cast<double>(layer_bytes * config.layers) /
                                (static_cast<double>(kReadBytes) / seconds[4]);
      const double roofline = seconds[3] + kv_seconds;
      report.Row()
          .Text("model", flags.Text("model"))
          .Text("shape", absl::StrCat(batch, "x", context))
          .Text("runs", layout.text)
          .Number("step_ms", seconds[0] * 1e3, 2)
          .Number("roofline_ms", roofline * 1e3, 2)
          .Number("of_roofline", seconds[0] / roofline, 2)
          .Number("cublas_ms", seconds[3] * 1e3, 2)
          .Number("kv_ms", kv_seconds * 1e3, 2)
          .Number("matmul_ms", seconds[2] * 1e3, 2)
          .Number("attention_ms", seconds[1] * 1e3, 2)
          .Number("rest_ms", (seconds[0] - seconds[1] - seconds[2]) * 1e3, 2)
          .Number("launching_ms", host_seconds * 1e3, 2)
          .Number("tokens_per_s", static_cast<double>(batch) / seconds[0], 0);
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
