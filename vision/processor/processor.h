// Image processor: turns an RGB image of any size into the square of pixels that the vision tower
// reads. It does what Hugging Face's CLIPImageProcessor does (Pillow path), with LLaVA's optional
// padding to a square.
//
// The known values of `image_processor_type` are CLIPImageProcessor, its older name
// CLIPFeatureExtractor, LlavaImageProcessor (the same with do_pad), and the "Fast" names of newer
// checkpoints. The pixels are always those of the Pillow path. Threads: safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "vision/codecs/image.h"
#include "vision/processor/resize.h"

namespace tessera {

// The checked content of preprocessor_config.json. Defaults: transformers' CLIPImageProcessor.
struct ProcessorConfig {
  bool do_resize = true;
  bool do_center_crop = true;
  bool do_pad = false;      // first pad to a square with the mean colour (LLaVA-1.5)
  int shortest_edge = 224;  // the resized image's shorter side; the aspect ratio is kept
  int squash = 0;           // if > 0: resize to squash x squash instead
  int crop = 224;           // height and width after the centre crop
  Resample resample = Resample::kBicubic;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
  uint8_t pad_color[3] = {122, 116, 104};  // int(image_mean * 255), even without do_normalize

  int side() const { return do_center_crop ? crop : squash; }  // of the processed image
};

// Parses the file's text `json`. Returns INVALID_ARGUMENT for invalid values. Returns
// UNIMPLEMENTED, with key and value, for settings that this path does not compute: other processor
// types, rescale factors, filters, shapes that are not square.
absl::StatusOr<ProcessorConfig> ParseProcessorConfig(absl::string_view json);

// A processed image: side x side RGB8 pixels. The device normalises them later.
struct PreparedImage {
  int side = 0;
  std::vector<uint8_t> rgb;  // [side, side, 3]
  Digest digest{};           // SHA-256 of decoded size, decoded pixels and the processor's settings
};

// Processes one image. A crop larger than the resized image is zero-padded, as in Hugging Face.
// Only the cropped pixels are computed, so extreme shapes are cheap. Returns INVALID_ARGUMENT if
// padding to a square would exceed limits.max_pixels. REQUIRES: a config that ParseProcessorConfig
// can return.
absl::StatusOr<PreparedImage> PrepareImage(const Image& image, const ProcessorConfig& config,
                                           const ImageLimits& limits);

}  // namespace tessera
