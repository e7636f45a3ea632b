// tessera_bench prefill and vision: the share of the device's bfloat16 rate that prompts and images
// reach. The rate is that of an 8192-wide cublasLt product in the same run.
//
// `prefill` runs LLaVA-1.5-7B's language model over whole prompts, from the embedding to the logits
// of each last row. `vision` runs its vision tower and projector on as many images as the engine
// encodes together. Operations counted are two per weight and row, and attention's products over
// the rows that a row sees.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/model/llama.h"
#include "tests/bench/device_cache.h"
#include "tests/bench/llava_7b.h"
#include "tests/bench/repeated_weights.h"
#include "vision/tower/projector.h"

namespace tessera::bench {
namespace {

constexpr int64_t kWide = 8192;

float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

// The product whose rate is the roofline.
struct Ceiling {
  explicit Ceiling(Device& device)
      : device_(device),
        a(device.ops().Allocate(kWide * kWide * 2)),
        b(device.ops().Allocate(kWide * kWide * 2)),
        c(device.ops().Allocate(kWide * kWide * 2)) {
    device.Fill(a.get(), DType::kBF16, kWide * kWide, 1);
    device.Fill(b.get(), DType::kBF16, kWide * kWide, 2);
  }
  void Run() { device_.Product(kWide, kWide, kWide, a.get(), b.get(), c.get()); }
  static constexpr double kOperations = 2.0 * kWide * kWide * kWide;

  Device& device_;
  Buffer a, b, c;
};

void AddRow(Report& report, const std::string& shape, double operations,
            const std::vector<double>& seconds) {
  const double rate = operations / seconds[0], ceiling = Ceiling::kOperations / seconds[1];
  report.Row()
      .Text("shape", shape)
      .Number("ms", seconds[0] * 1e3, 2)
      .Number("TFLOP/s", rate * 1e-12, 0)
      .Number("bf16 TFLOP/s", ceiling * 1e-12, 0)
      .Number("share", rate / ceiling, 2);
}

struct Prompts {
  int64_t count = 0, tokens = 0;  // `tokens` in each
};

absl::StatusOr<Prompts> ParsePrompts(absl::string_view text, int64_t most_tokens) {
  const std::pair<std::string, std::string> halves = absl::StrSplit(text, 'x');
  Prompts p;
  if (!absl::SimpleAtoi(halves.first, &p.count) || !absl::SimpleAtoi(halves.second, &p.tokens) ||
      p.count <= 0 || p.tokens <= 0 || p.tokens > most_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not PROMPTSxTOKENS"));
  }
  return p;
}

absl::Status RunPrefill(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  Ops& ops = device->ops();
  const LlamaConfig config = Llava7b().text;
  const double hidden = config.hidden;
  RepeatedWeights weights(std::max<int64_t>(config.vocab, 2 * config.intermediate) * config.hidden);
  Ceiling ceiling(*device);
  std::unique_ptr<LlamaDecoder> decoder;
  int64_t allocated = 0;
  for (const absl::string_view part : absl::StrSplit(flags.Text("shape"), ',')) {
    ASSIGN_OR_RETURN(const Prompts parsed, ParsePrompts(part, config.max_positions));
    const int64_t prompts = parsed.count, tokens = parsed.tokens;
    const int64_t rows = prompts * tokens;
    if (rows > allocated) {
      decoder.reset();
      ASSIGN_OR_RETURN(decoder, LlamaDecoder::Load(config, weights, ops, static_cast<int>(rows)));
      allocated = rows;
    }
    ASSIGN_OR_RETURN(const CacheLayout layout, CacheLayout::Parse("raw16"));
    const DeviceCache cache(*device, config.kv_geometry(), 1, prompts, tokens, layout.At(tokens));
    std::vector<int32_t> ids(rows), positions(rows), last(prompts);
    for (int64_t i = 0; i < rows; ++i) {
      ids[i] = static_cast<int32_t>(i % 1000);
      positions[i] = static_cast<int32_t>(i % tokens);
    }
    for (int64_t i = 0; i < prompts; ++i) last[i] = static_cast<int32_t>((i + 1) * tokens - 1);
    const Buffer ids_d = Upload(ops, ids), positions_d = Upload(ops, positions),
                 last_d = Upload(ops, last);
    DeviceBatch step;
    step.rows = rows;
    step.sequences = step.logit_rows = prompts;
    step.ids = reinterpret_cast<const int32_t*>(ids_d.get());
    step.positions = reinterpret_cast<const int32_t*>(positions_d.get());
    step.query_begin = cache.query_begin();
    step.logit_row = reinterpret_cast<const int32_t*>(last_d.get());
    step.slots.assign(config.layers, cache.last_slots(0));
    step.kv.assign(config.layers, cache.Layer(0));
    const AttentionMetadata metadata{
        step.query_begin, prompts,          config.heads, step.kv.data(),
        config.layers,    layout.formats(), rows,         tokens};
    const std::vector<double> seconds =
        device->MedianSeconds(flags, {[&](int64_t) {
                                        ops.PlanAttention(metadata);
                                        decoder->Embed(step);
                                        decoder->Forward(step);
                                      },
                                      [&](int64_t) { ceiling.Run(); }});
    const auto n = static_cast<double>(tokens), all = static_cast<double>(rows);
    const double layer = 4 * hidden * hidden + 3 * hidden * config.intermediate;
    const double attention = 4 * n * (n + 1) / 2 * hidden * static_cast<double>(prompts);
    AddRow(report, std::string(part),
           config.layers * (2 * all * layer + attention) +
               2.0 * static_cast<double>(prompts) * hidden * config.vocab,
           seconds);
  }
  return absl::OkStatus();
}

absl::Status RunVision(const Flags& flags, Report& report) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, Device::Open(false));
  Ops& ops = device->ops();
  const ModelConfig config = Llava7b();
  const ClipConfig& c = config.vision;
  RepeatedWeights weights(int64_t{config.text.hidden} * config.text.hidden);
  ASSIGN_OR_RETURN(const auto tower, ClipTower::Load(c, weights, ops, "vision"));
  ASSIGN_OR_RETURN(Projector projector,
                   Projector::Load(c.hidden, config.text.hidden, config.projector_activation,
                                   weights, ops, "projector"));
  Ceiling ceiling(*device);
  for (const int64_t images : flags.Numbers("images")) {
    const int64_t pass = std::min(images, flags.Number("pass"));
    const int64_t pixels = int64_t{3} * c.image_size * c.image_size;
    const Buffer in = ops.Allocate(pass * pixels);
    const Buffer out = ops.Allocate(pass * c.features() * c.hidden * 4);
    const Buffer features = ops.Allocate(pass * c.features() * config.text.hidden * 4);
    device->Fill(in.get(), DType::kF16, pass * pixels / 2, 1);
    const std::vector<double> seconds = device->MedianSeconds(
        flags, {[&](int64_t) {
                  for (int64_t first = 0; first < images; first += pass) {
                    const int64_t n = std::min(pass, images - first);
                    tower->Forward(in.get(), n, config.processor.mean, config.processor.std,
                                   Floats(out));
                    for (int64_t i = 0; i < n; ++i) {  // its own memory per image, as in the engine
                      projector.Forward(Floats(out) + i * c.features() * c.hidden, c.features(),
                                        Floats(features) + i * c.features() * config.text.hidden);
                    }
                  }
                },
                [&](int64_t) { ceiling.Run(); }});
    const double n = c.tokens(), hidden = c.hidden, wide = config.text.hidden;
    const double block =
        2 * n * (4 * hidden * hidden + 2 * hidden * c.intermediate) + 4 * n * n * hidden;
    const double ends = 2.0 * c.patches() * hidden * 3 * c.patch * c.patch +
                        2.0 * c.features() * (hidden * wide + wide * wide);
    AddRow(report, absl::StrCat(images), static_cast<double>(images) * (c.blocks() * block + ends),
           seconds);
  }
  return absl::OkStatus();
}

}  // namespace

Command PrefillCommand() {
  return {.name = "prefill",
          .help = "prompts of LLaVA-1.5-7B's language model on a GPU, of its bfloat16 rate",
          .flags = {{"shape", "1x620,4x620,16x620,2x2430", "PROMPTSxTOKENS"}},
          .run = RunPrefill};
}

Command VisionCommand() {
  return {.name = "vision",
          .help = "pictures of 336 pixels through LLaVA-1.5's tower and projector on a GPU",
          .flags = {{"images", "1,4,16", "pictures"}, {"pass", "8", "of them at a time"}},
          .run = RunVision};
}

}  // namespace tessera::bench
