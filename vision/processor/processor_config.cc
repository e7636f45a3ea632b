// Parses preprocessor_config.json into a ProcessorConfig.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "nlohmann/json.hpp"
#include "vision/processor/processor.h"

namespace tessera {
namespace {

using nlohmann::json;

constexpr char kFile[] = "preprocessor_config.json";
constexpr size_t kMaxBytes = 64 << 10;  // real files have about 1 kB
constexpr int kMaxDepth = 8;
constexpr int kMaxSide = 4096;

constexpr const char* kTypes[] = {"CLIPImageProcessor", "CLIPFeatureExtractor",
                                  "LlavaImageProcessor", "CLIPImageProcessorFast",
                                  "LlavaImageProcessorFast"};

absl::Status Invalid(absl::string_view key, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(kFile, ": ", key, " must be ", wanted));
}

absl::Status Unimplemented(absl::string_view key, absl::string_view value,
                           absl::string_view supported) {
  return absl::UnimplementedError(
      absl::StrCat(kFile, ": ", key, " ", value, " is not supported (", supported, ")"));
}

// Returns null if the key is absent or null; the default then stays.
const json* Member(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<json> Parse(absl::string_view text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kFile, ": ", text.size(), " bytes, the limit is ", kMaxBytes));
  }
  bool too_deep = false;
  const auto guard = [&too_deep](int depth, json::parse_event_t, json&) {
    too_deep |= depth > kMaxDepth;
    return !too_deep;
  };
  json parsed = json::parse(text.begin(), text.end(), guard, /*allow_exceptions=*/false);
  if (too_deep || !parsed.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(kFile, ": not a flat JSON object"));
  }
  return parsed;
}

absl::Status ReadType(const json& config) {
  const json* type = Member(config, "image_processor_type");
  if (type == nullptr) type = Member(config, "feature_extractor_type");
  if (type == nullptr) return absl::OkStatus();  // transformers' default for LLaVA is CLIP's
  if (!type->is_string()) return Invalid("image_processor_type", "a string");
  const std::string& name = type->get_ref<const std::string&>();
  for (const char* known : kTypes) {
    if (name == known) return absl::OkStatus();
  }
  return Unimplemented("image_processor_type", name,
                       "CLIPImageProcessor and LlavaImageProcessor are");
}

absl::Status ReadBool(const json& config, const char* key, bool* out) {
  const json* value = Member(config, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return Invalid(key, "true or false");
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadSide(const json& value, absl::string_view key, int* out) {
  if (!value.is_number_integer() || value < 1 || value > kMaxSide) {
    return Invalid(key, absl::StrCat("an integer from 1 to ", kMaxSide));
  }
  *out = value.get<int>();
  return absl::OkStatus();
}

// Reads {"height": n, "width": n} as n.
absl::Status ReadSquare(const json& value, absl::string_view key, int* out) {
  const json* height = Member(value, "height");
  const json* width = Member(value, "width");
  if (height == nullptr || width == nullptr) return Invalid(key, "an integer, or height and width");
  int h = 0, w = 0;
  RETURN_IF_ERROR(ReadSide(*height, absl::StrCat(key, ".height"), &h));
  RETURN_IF_ERROR(ReadSide(*width, absl::StrCat(key, ".width"), &w));
  if (h != w) return Unimplemented(key, absl::StrCat(h, " x ", w), "squares are");
  *out = h;
  return absl::OkStatus();
}

absl::Status ReadSizes(const json& config, ProcessorConfig* out) {
  if (const json* size = Member(config, "size"); size != nullptr) {
    if (!size->is_object()) {
      RETURN_IF_ERROR(ReadSide(*size, "size", &out->shortest_edge));
    } else if (const json* edge = Member(*size, "shortest_edge"); edge != nullptr) {
      if (size->size() > 1)
        return Unimplemented("size", "with keys in addition to shortest_edge", "it alone is");
      RETURN_IF_ERROR(ReadSide(*edge, "size.shortest_edge", &out->shortest_edge));
    } else {
      RETURN_IF_ERROR(ReadSquare(*size, "size", &out->squash));
    }
  }
  if (const json* crop = Member(config, "crop_size"); crop != nullptr) {
    RETURN_IF_ERROR(crop->is_object() ? ReadSquare(*crop, "crop_size", &out->crop)
                                      : ReadSide(*crop, "crop_size", &out->crop));
  }
  if (!out->do_center_crop && !(out->do_resize && out->squash > 0)) {
    return Unimplemented("do_center_crop", "false",
                         "unless do_resize and size.height make a square");
  }
  return absl::OkStatus();
}

absl::Status ReadTriple(const json& config, const char* key, double min, double out[3]) {
  const json* value = Member(config, key);
  if (value == nullptr) return absl::OkStatus();
  const std::string wanted = absl::StrCat("3 numbers from ", min, " to 1");
  if (!value->is_array() || value->size() != 3) return Invalid(key, wanted);
  for (int c = 0; c < 3; ++c) {
    const json& element = (*value)[c];
    const double number = element.is_number() ? element.get<double>() : -1.0;
    if (!(number >= min && number <= 1.0)) return Invalid(key, wanted);
    out[c] = number;
  }
  return absl::OkStatus();
}

// Reads the parameters of (p / 255 - mean) / std, the only normalisation that the device computes.
absl::Status ReadNormalisation(const json& config, ProcessorConfig* out) {
  bool rescale = true, normalize = true, convert = true;
  RETURN_IF_ERROR(ReadBool(config, "do_rescale", &rescale));
  RETURN_IF_ERROR(ReadBool(config, "do_normalize", &normalize));
  RETURN_IF_ERROR(ReadBool(config, "do_convert_rgb", &convert));
  if (!rescale) return Unimplemented("do_rescale", "false", "true is");
  if (!convert) return Unimplemented("do_convert_rgb", "false", "true is");
  if (const json* factor = Member(config, "rescale_factor"); factor != nullptr) {
    if (!factor->is_number()) return Invalid("rescale_factor", "a number");
    if (std::abs(factor->get<double>() * 255.0 - 1.0) > 1e-6) {
      return Unimplemented("rescale_factor", factor->dump(), "1/255 is");
    }
  }
  double mean[3] = {0.48145466, 0.4578275, 0.40821073};
  double std[3] = {0.26862954, 0.26130258, 0.27577711};
  RETURN_IF_ERROR(ReadTriple(config, "image_mean", 0.0, mean));
  RETURN_IF_ERROR(ReadTriple(config, "image_std", 1e-3, std));
  for (int c = 0; c < 3; ++c) {
    out->pad_color[c] = static_cast<uint8_t>(mean[c] * 255.0);
    out->mean[c] = normalize ? static_cast<float>(mean[c]) : 0.0f;
    out->std[c] = normalize ? static_cast<float>(std[c]) : 1.0f;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ProcessorConfig> ParseProcessorConfig(absl::string_view text) {
  ASSIGN_OR_RETURN(const json config, Parse(text));
  RETURN_IF_ERROR(ReadType(config));
  ProcessorConfig out;
  RETURN_IF_ERROR(ReadBool(config, "do_resize", &out.do_resize));
  RETURN_IF_ERROR(ReadBool(config, "do_center_crop", &out.do_center_crop));
  RETURN_IF_ERROR(ReadBool(config, "do_pad", &out.do_pad));
  RETURN_IF_ERROR(ReadSizes(config, &out));
  RETURN_IF_ERROR(ReadNormalisation(config, &out));
  if (const json* resample = Member(config, "resample"); resample != nullptr) {
    if (!resample->is_number_integer()) return Invalid("resample", "an integer");
    if (*resample != 2 && *resample != 3) {
      return Unimplemented("resample", resample->dump(), "2, bilinear, and 3, bicubic, are");
    }
    out.resample = static_cast<Resample>(resample->get<int>());
  }
  return out;
}

}  // namespace tessera
