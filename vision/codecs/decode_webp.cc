// WebP (lossy, lossless, with alpha) by libwebp; animations are refused.
#include <webp/decode.h>

#include <cstring>

#include "vision/codecs/codec.h"

namespace tessera {
namespace {

constexpr char kFormat[] = "WebP";

const uint8_t* Data(absl::string_view bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

absl::Status Failure(VP8StatusCode code) {
  switch (code) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return TruncatedImage(kFormat);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return UnsupportedImage(kFormat, "unknown coding");
    default:
      return CorruptImage(kFormat);
  }
}

}  // namespace

bool IsWebp(absl::string_view bytes) {
  return bytes.size() >= 12 && bytes.substr(0, 4) == "RIFF" && bytes.substr(8, 4) == "WEBP";
}

absl::StatusOr<ImageSize> ReadWebpSize(absl::string_view bytes) {
  WebPBitstreamFeatures features;
  const VP8StatusCode code = WebPGetFeatures(Data(bytes), bytes.size(), &features);
  if (code != VP8_STATUS_OK) return Failure(code);
  if (features.has_animation) return UnsupportedImage(kFormat, "animation; send a still image");
  if (features.width <= 0 || features.height <= 0) return EmptyImage(kFormat);
  return ImageSize{features.width, features.height};
}

absl::Status DecodeWebp(absl::string_view bytes, ImageSize size, uint8_t* rgb) {
  // libwebp reads only the image's own chunk. The container's length tells whether the file is
  // complete.
  const uint8_t* b = Data(bytes);
  const uint64_t riff_bytes =
      uint64_t{b[4]} | uint64_t{b[5]} << 8 | uint64_t{b[6]} << 16 | uint64_t{b[7]} << 24;
  if (riff_bytes + 8 > bytes.size()) return TruncatedImage(kFormat);

  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return CorruptImage(kFormat);
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.width = size.width;
  config.output.height = size.height;
  config.output.u.RGBA.rgba = rgb;
  config.output.u.RGBA.stride = size.width * 3;
  config.output.u.RGBA.size = size_t{3} * size.width * size.height;
  const VP8StatusCode code = WebPDecode(b, bytes.size(), &config);
  return code == VP8_STATUS_OK ? absl::OkStatus() : Failure(code);
}

}  // namespace tessera
