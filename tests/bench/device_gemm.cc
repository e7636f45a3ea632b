// tessera_bench gemm --device=cuda: dense layers with float32 activations, compared with cublasLt's
// bare bfloat16 product and with the rate at which the device reads memory.
#include "absl/status/status.h"
#include "tests/bench/device.h"

namespace tessera::bench {

absl::Status RunDeviceGemm(const Flags& flags, Report& report) {
  const int64_t in = flags.Number("in"), out = flags.Number("out");
  if (flags.Text("dtype") != "BF16") {
    return absl::InvalidArgumentError("--device=cuda compares BF16 only");
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device,
                   Device::Open(flags.Text("precise") == "1"));
  Ops& ops = device->ops();
  const int64_t weight_bytes = in * out * 2;
  const int64_t copies = CeilDiv(kRotatedBytes, weight_bytes) + 1;
  std::vector<Linear> weights;
  const std::vector<uint16_t> zeros(in * out);
  for (int64_t i = 0; i < copies; ++i) {
    weights.push_back(ops.MakeLinear({{zeros.data(), nullptr, out}}, in, DType::kBF16));
    device->Fill(weights.back().weight.get(), DType::kBF16, in * out, static_cast<uint32_t>(i));
  }
  const int64_t read_bytes = int64_t{1} << 30;
  const Buffer large = ops.Allocate(read_bytes);
  device->Fill(large.get(), DType::kF32, read_bytes / 4, 7);

  for (int64_t m : flags.Numbers("m")) {
    const Buffer x = ops.Allocate(m * in * 4), y = ops.Allocate(m * out * 4);
    const Buffer a = ops.Allocate(m * in * 2), c = ops.Allocate(m * out * 2);
    device->Fill(x.get(), DType::kF32, m * in, 1);
    device->Fill(a.get(), DType::kBF16, m * in, 1);
    const auto floats = [](const Buffer& b) { return reinterpret_cast<float*>(b.get()); };
    // Runs every copy once per round, so that the time of one launch does not matter.
    const std::vector<double> seconds = device->MedianSeconds(
        flags, {[&](int64_t) {
                  for (const Linear& w : weights) ops.MatMul(w, floats(x), m, floats(y));
                },
                [&](int64_t) {
                  for (const Linear& w : weights) {
                    device->Product(m, out, in, a.get(), w.weight.get(), c.get());
                  }
                },
                [&](int64_t) { device->Read(large.get(), read_bytes); }});
    const double ours = seconds[0] / static_cast<double>(copies);
    const double bare = seconds[1] / static_cast<double>(copies);
    const double read_rate = static_cast<double>(read_bytes) / seconds[2];
    const double flops = 2.0 * static_cast<double>(m * in * out);
    report.Row()
        .Text("device", device->name())
        .Number("m", static_cast<double>(m), 0)
        .Number("us", ours * 1e6, 1)
        .Number("cublas_us", bare * 1e6, 1)
        .Number("tflops", flops / ours * 1e-12, 1)
        .Number("of_cublas", bare / ours, 2)
        .Number("weight_gbytes_per_s", static_cast<double>(weight_bytes) / ours * 1e-9, 0)
        .Number("of_memory_read", static_cast<double>(weight_bytes) / ours / read_rate, 2);
  }
  return absl::OkStatus();
}

}  // namespace tessera::bench
