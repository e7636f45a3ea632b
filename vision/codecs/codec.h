// The three image codecs behind DecodeImage. Private to vision/codecs/.
//
// Each format has three functions: one recognises the bytes, one reads the size that the header
// claims, and one decodes. The caller checks the claimed size against the limits and allocates the
// memory before it decodes. No function returns a library's own text, because such text has
// contained addresses and file content.
// Threads: safe (no state). Errors: INVALID_ARGUMENT.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "vision/codecs/decode.h"

namespace tessera {

bool IsJpeg(absl::string_view bytes);
bool IsPng(absl::string_view bytes);
bool IsWebp(absl::string_view bytes);

// Read the header only and allocate nothing that grows with the image. Refuse unsupported kinds
// (CMYK, 16 bit, animation) and zero sizes.
absl::StatusOr<ImageSize> ReadJpegSize(absl::string_view bytes);
absl::StatusOr<ImageSize> ReadPngSize(absl::string_view bytes);
absl::StatusOr<ImageSize> ReadWebpSize(absl::string_view bytes);

// Decode into rgb [height, width, 3]. `size` is the result of Read*Size for the same bytes. The
// pixels are unspecified after an error.
absl::Status DecodeJpeg(absl::string_view bytes, ImageSize size, uint8_t* rgb);
absl::Status DecodePng(absl::string_view bytes, ImageSize size, uint8_t* rgb);
absl::Status DecodeWebp(absl::string_view bytes, ImageSize size, uint8_t* rgb);

// The errors of all codecs, in our own words.
inline absl::Status TruncatedImage(absl::string_view format) {
  return absl::InvalidArgumentError(
      absl::StrCat("truncated ", format, " image: the data ends early"));
}
inline absl::Status CorruptImage(absl::string_view format) {
  return absl::InvalidArgumentError(absl::StrCat("corrupt ", format, " image"));
}
inline absl::Status EmptyImage(absl::string_view format) {
  return absl::InvalidArgumentError(absl::StrCat(format, " image of zero width or height"));
}
inline absl::Status UnsupportedImage(absl::string_view format, absl::string_view kind) {
  return absl::InvalidArgumentError(absl::StrCat(format, " image of an unsupported kind: ", kind));
}

}  // namespace tessera
