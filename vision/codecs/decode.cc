#include "vision/codecs/decode.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "base/base.h"
#include "vision/codecs/codec.h"

namespace tessera {
namespace {

struct Codec {
  const char* mime;
  bool (*matches)(absl::string_view);
  absl::StatusOr<ImageSize> (*read_size)(absl::string_view);
  absl::Status (*decode)(absl::string_view, ImageSize, uint8_t*);
};

constexpr Codec kCodecs[] = {
    {"image/jpeg", IsJpeg, ReadJpegSize, DecodeJpeg},
    {"image/png", IsPng, ReadPngSize, DecodePng},
    {"image/webp", IsWebp, ReadWebpSize, DecodeWebp},
};

// Returns the codec of a MIME type ("Image/JPG; q=1" gives JPEG's), or null for an unknown type.
const Codec* CodecOfMime(absl::string_view mime) {
  const absl::string_view type = absl::StripAsciiWhitespace(mime.substr(0, mime.find(';')));
  if (absl::EqualsIgnoreCase(type, "image/jpg")) return &kCodecs[0];  // common misnomer
  for (const Codec& codec : kCodecs) {
    if (absl::EqualsIgnoreCase(type, codec.mime)) return &codec;
  }
  return nullptr;
}

absl::StatusOr<const Codec*> FindCodec(absl::string_view bytes, absl::string_view mime) {
  const Codec* found = nullptr;
  for (const Codec& codec : kCodecs) {
    if (codec.matches(bytes)) found = &codec;
  }
  if (found == nullptr) {
    return absl::InvalidArgumentError("the bytes are not a JPEG, PNG or WebP image");
  }
  if (mime.empty()) return found;
  const Codec* claimed = CodecOfMime(mime);
  if (claimed == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the mime type is not image/jpeg, image/png or image/webp (the bytes are ",
                     found->mime, ")"));
  }
  if (claimed != found) {
    return absl::InvalidArgumentError(
        absl::StrCat("the mime type says ", claimed->mime, ", the bytes are ", found->mime));
  }
  return found;
}

absl::Status CheckSize(ImageSize size, const ImageLimits& limits) {
  if (size.width > limits.max_side || size.height > limits.max_side) {
    return absl::ResourceExhaustedError(absl::StrCat("image of ", size.width, " x ", size.height,
                                                     " pixels: the limit for a side is ",
                                                     limits.max_side));
  }
  const int64_t pixels = int64_t{size.width} * size.height;
  if (pixels > limits.max_pixels) {
    return absl::ResourceExhaustedError(absl::StrCat("image of ", size.width, " x ", size.height,
                                                     " = ", pixels, " pixels: the limit is ",
                                                     limits.max_pixels));
  }
  return absl::OkStatus();
}

struct Opened {
  const Codec* codec;
  ImageSize size;
};

absl::StatusOr<Opened> Open(absl::string_view bytes, absl::string_view mime,
                            const ImageLimits& limits) {
  if (bytes.empty()) return absl::InvalidArgumentError("the image is empty (0 bytes)");
  if (static_cast<int64_t>(bytes.size()) > limits.max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "image of ", bytes.size(), " compressed bytes: the limit is ", limits.max_bytes));
  }
  Opened opened;
  ASSIGN_OR_RETURN(opened.codec, FindCodec(bytes, mime));
  ASSIGN_OR_RETURN(opened.size, opened.codec->read_size(bytes));
  TESSERA_CHECK(opened.size.width > 0 && opened.size.height > 0);
  RETURN_IF_ERROR(CheckSize(opened.size, limits));
  return opened;
}

}  // namespace

absl::StatusOr<ImageSize> ReadImageSize(absl::string_view bytes, absl::string_view mime,
                                        const ImageLimits& limits) {
  ASSIGN_OR_RETURN(const Opened opened, Open(bytes, mime, limits));
  return opened.size;
}

absl::StatusOr<Image> DecodeImage(absl::string_view bytes, absl::string_view mime,
                                  const ImageLimits& limits) {
  ASSIGN_OR_RETURN(const Opened opened, Open(bytes, mime, limits));
  Image image;
  image.width = opened.size.width;
  image.height = opened.size.height;
  image.rgb.resize(size_t{3} * image.width * image.height);
  RETURN_IF_ERROR(opened.codec->decode(bytes, opened.size, image.rgb.data()));
  return image;
}

}  // namespace tessera
