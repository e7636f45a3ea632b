#include "vision/processor/processor.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {
namespace {

// Returns the digest of the image and of every setting that affects the tower's input, so that one
// feature cache can serve several processors.
Digest DigestOf(const Image& image, const ProcessorConfig& c) {
  Hasher hasher;
  hasher.Add(int64_t{image.width}).Add(int64_t{image.height});
  hasher.Add(image.rgb.data(), image.rgb.size());
  for (int64_t setting : {int64_t{c.do_resize}, int64_t{c.do_center_crop}, int64_t{c.do_pad},
                          int64_t{c.shortest_edge}, int64_t{c.squash}, int64_t{c.crop},
                          static_cast<int64_t>(c.resample)}) {
    hasher.Add(setting);
  }
  hasher.Add(c.mean, sizeof c.mean).Add(c.std, sizeof c.std);
  hasher.Add(c.pad_color, sizeof c.pad_color);
  return hasher.Finish();
}

// Copies `from` into `to` with its top left corner at (left, top). REQUIRES: it lies inside.
void Paste(const Image& from, int left, int top, int to_width, uint8_t* to) {
  for (int y = 0; y < from.height; ++y) {
    std::memcpy(to + size_t{3} * (size_t{1} * (top + y) * to_width + left),
                &from.rgb[size_t{3} * from.width * y], size_t{3} * from.width);
  }
}

// Pads to a square with the image in the centre. An odd pixel of padding goes below or to the
// right.
Image PadToSquare(const Image& image, const uint8_t color[3]) {
  const int side = std::max(image.width, image.height);
  Image out{side, side, {}};
  out.rgb.resize(size_t{3} * side * side);
  for (size_t i = 0; i < out.rgb.size(); i += 3) std::memcpy(&out.rgb[i], color, 3);
  Paste(image, (side - image.width) / 2, (side - image.height) / 2, side, out.rgb.data());
  return out;
}

// One axis of the centre crop: `count` resized pixels from `first` on go to the output at
// `position`.
struct CropAxis {
  int first = 0;
  int count = 0;
  int position = 0;
};

CropAxis CenterCrop(int64_t resized, int crop) {
  if (resized >= crop) return {static_cast<int>((resized - crop) / 2), crop, 0};
  return {0, static_cast<int>(resized), static_cast<int>((crop - resized + 1) / 2)};  // ceil
}

}  // namespace

absl::StatusOr<PreparedImage> PrepareImage(const Image& image, const ProcessorConfig& config,
                                           const ImageLimits& limits) {
  TESSERA_CHECK(image.width > 0 && image.height > 0 &&
                image.rgb.size() == size_t{3} * image.width * image.height);
  TESSERA_CHECK(config.side() > 0);
  PreparedImage out;
  out.side = config.side();
  out.digest = DigestOf(image, config);
  out.rgb.resize(size_t{3} * out.side * out.side);

  Image padded;
  const Image* source = &image;
  if (config.do_pad && image.width != image.height) {
    const int64_t side = std::max(image.width, image.height);
    if (side * side > limits.max_pixels) {
      return absl::InvalidArgumentError(absl::StrCat(
          "image of ", image.width, " x ", image.height, " pixels: padded to a square ", "it has ",
          side * side, " pixels, the limit is ", limits.max_pixels));
    }
    padded = PadToSquare(image, config.pad_color);
    source = &padded;
  }

  int64_t width = source->width, height = source->height;
  if (config.do_resize && config.squash > 0) {
    width = height = config.squash;
  } else if (config.do_resize) {
    // Hugging Face computes int(edge * long / short) in float64, which is the same floor for such
    // sizes.
    const int64_t shorter = std::min(width, height);
    width = config.shortest_edge * width / shorter;
    height = config.shortest_edge * height / shorter;
  }
  if (std::max(width, height) > (1 << 30)) {
    return absl::InvalidArgumentError(absl::StrCat("image of ", image.width, " x ", image.height,
                                                   " pixels: too long for its short side"));
  }
  const CropAxis x = CenterCrop(width, out.side), y = CenterCrop(height, out.side);
  const Image part = ResizeWindow(*source, static_cast<int>(width), static_cast<int>(height),
                                  {x.first, y.first, x.count, y.count}, config.resample);
  Paste(part, x.position, y.position, out.side, out.rgb.data());
  return out;
}

}  // namespace tessera
