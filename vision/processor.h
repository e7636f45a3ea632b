// From an RGB image of any size to the square of pixels that the vision tower reads, as Hugging
// Face's CLIPImageProcessor does it (Pillow path), with LLaVA's optional padding to a square.
//
// A table of processors by `image_processor_type`; today `CLIPImageProcessor`. Threads: safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/digest.h"
#include "vision/image.h"
#include "vision/resize.h"

namespace tessera {

// preprocessor_config.json, checked.
struct ProcessorConfig {
  bool do_resize = true;
  bool do_center_crop = true;
  bool do_pad = false;  // expand to a square with the mean colour first (original LLaVA-1.5)
  int shortest_edge = 336;
  int crop = 336;  // height and width after the centre crop
  Resample resample = Resample::kBicubic;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
};

// Rejects what this path does not compute (other rescale factors, other processor types, crop
// larger than the resized image is zero-padded as Hugging Face does). `json` is the file's text.
absl::StatusOr<ProcessorConfig> ParseProcessorConfig(absl::string_view json);

// What the engine keeps of an image: crop x crop RGB8 pixels (normalised later, on the device).
struct PreparedImage {
  int side = 0;
  std::vector<uint8_t> rgb;  // [side, side, 3]
  Digest digest{};           // SHA-256 of decoded size, decoded pixels and the processor's settings
};

// INVALID_ARGUMENT for extreme aspect ratios whose resized image would exceed `limits`.
absl::StatusOr<PreparedImage> PrepareImage(const Image& image, const ProcessorConfig& config,
                                           const ImageLimits& limits);

}  // namespace tessera
