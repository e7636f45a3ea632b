// From an RGB image of any size to the square of pixels that the vision tower reads, as Hugging
// Face's CLIPImageProcessor does it (Pillow path), with LLaVA's optional padding to a square.
//
// A table of processors by `image_processor_type`: CLIPImageProcessor, its older name
// CLIPFeatureExtractor, LlavaImageProcessor (the same and do_pad), and the "Fast" names that newer
// checkpoints carry; the pixels are always those of the Pillow path. Threads: safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "vision/codecs/image.h"
#include "vision/processor/resize.h"

namespace tessera {

// preprocessor_config.json, checked. Defaults: transformers' CLIPImageProcessor.
struct ProcessorConfig {
  bool do_resize = true;
  bool do_center_crop = true;
  bool do_pad = false;      // expand to a square with the mean colour first (original LLaVA-1.5)
  int shortest_edge = 224;  // the resized image's shorter side; its shape is kept
  int squash = 0;           // if > 0: resize to squash x squash instead, whatever the shape
  int crop = 224;           // height and width after the centre crop
  Resample resample = Resample::kBicubic;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
  uint8_t pad_color[3] = {122, 116, 104};  // int(image_mean * 255), whatever do_normalize says

  int side() const { return do_center_crop ? crop : squash; }  // of the prepared image
};

// INVALID_ARGUMENT for values that make no sense; UNIMPLEMENTED, naming key and value, for what
// this path does not compute (other processor types, rescale factors, filters, shapes that are not
// square). `json` is the file's text.
absl::StatusOr<ProcessorConfig> ParseProcessorConfig(absl::string_view json);

// What the engine keeps of an image: side x side RGB8 pixels (normalised later, on the device).
struct PreparedImage {
  int side = 0;
  std::vector<uint8_t> rgb;  // [side, side, 3]
  Digest digest{};           // SHA-256 of decoded size, decoded pixels and the processor's settings
};

// A crop larger than the resized image is zero-padded, as Hugging Face does. Extreme shapes are
// cheap: only the cropped pixels are computed. INVALID_ARGUMENT if padding to a square would exceed
// limits.max_pixels. REQUIRES: a config that ParseProcessorConfig could return.
absl::StatusOr<PreparedImage> PrepareImage(const Image& image, const ProcessorConfig& config,
                                           const ImageLimits& limits);

}  // namespace tessera
