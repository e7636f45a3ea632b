// `calibquant`: vision tokens at 1 bit, one range per channel and image, calibrated logits.
//
// Source: CalibQuant (arXiv 2502.14882). After prefill, the keys (after RoPE) and values of image
// tokens are stored per channel. The range is the min and max over the image, both times beta: 0.5
// for keys and 0.3 for values at 1 bit, where the error of a min/max range exceeds the signal, else
// 1. The zero point is real. Text before and after the image and all generated tokens stay at 16
// bit. In each attention, before softmax, an affine map sends each query's logits of image tokens
// from [min, max] to [min, max - tau], because quantization made the extremes too extreme. tau is 3
// at 1 and 2 bits; at 4 bits nothing needs repair and there is no map.
//
// Our choices where the paper is silent:
// - A map with a negative slope (max - min < tau) would reverse the order of tokens. The slope is
//   clamped to 0, and counted.
// - With several images, ranges are per image (the authors' code: one range over all images). The
//   map's min and max are over all images of the prompt, as in their code.
// - `quantile` > 0 is our reading of the paper's first version: that share of a channel's values is
//   cut off at either end, before beta.
#include "absl/strings/str_cat.h"
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"bits", ParameterSpec::Kind::kChoice, 2, 0, 0, "4|2|1", "bits of a stored value"},
    {"beta_k", ParameterSpec::Kind::kReal, 0, 0, 1, "",
     "factor of a key channel's range (0: as published, 0.5 at 1 bit, else 1)"},
    {"beta_v", ParameterSpec::Kind::kReal, 0, 0, 1, "",
     "factor of a value channel's range (0: as published, 0.3 at 1 bit, else 1)"},
    {"tau", ParameterSpec::Kind::kReal, -1, -1, 1000, "",
     "by how much the largest logit is lowered (-1: as published, 3 at 1 and 2 bits, else 0)"},
    {"tau_low", ParameterSpec::Kind::kReal, 0, 0, 1000, "",
     "by how much the smallest logit is raised"},
    {"quantile", ParameterSpec::Kind::kReal, 0, 0, 0.49, "",
     "share of a channel's values cut off at either end"},
};

constexpr double kLeastBeta = 0.001;  // smaller steps vanish in half precision

absl::StatusOr<std::shared_ptr<const Store>> MakeCalibQuant(const PolicyArguments& arguments) {
  const int bits = static_cast<int>(ChosenNumber(arguments, "bits"));
  const auto beta = [&](absl::string_view name, double at_one_bit) {
    const double given = arguments.Real(name);
    return static_cast<float>(given > 0 ? given : bits == 1 ? at_one_bit : 1);
  };
  for (const char* name : {"beta_k", "beta_v"}) {
    const double value = arguments.Real(name);
    if (value == 0 || value >= kLeastBeta) continue;
    return absl::InvalidArgumentError(absl::StrCat("kv policy 'calibquant': ", name, "=", value,
                                                   " is neither 0 nor at least ", kLeastBeta));
  }
  const double tau = arguments.Real("tau");
  if (tau < 0 && tau != -1) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy 'calibquant': tau=", tau, " is neither -1 nor at least 0"));
  }
  LayerStorage layer;
  layer.vision = FormatOf({bits, Axis::kSegment}, {bits, Axis::kSegment});
  layer.vision_rule = {.clip_k = beta("beta_k", 0.5),
                       .clip_v = beta("beta_v", 0.3),
                       .integer_offset = false,
                       .quantile = static_cast<float>(arguments.Real("quantile"))};
  layer.vision_map = {.raise = static_cast<float>(arguments.Real("tau_low")),
                      .lower = static_cast<float>(tau >= 0    ? tau
                                                  : bits <= 2 ? 3
                                                              : 0)};
  return std::make_shared<UniformStore>(arguments.Canonical("calibquant"), /*rotated=*/false,
                                        layer);
}

}  // namespace

PolicyEntry CalibQuantPolicy() {
  return {"calibquant", "CalibQuant: images per channel at 1 bit, their logits calibrated.",
          kParameters, nullptr, MakeCalibQuant};
}

}  // namespace tessera
