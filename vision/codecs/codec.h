// The three image codecs behind DecodeImage. Private to vision/decode*.cc.
//
// Each format is three functions: does it look like mine, what size does the header claim, decode
// into memory that the caller has sized from that claim after checking the limits. None of them
// returns a library's own text: such text has carried addresses and file content.
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

// Header only: allocates nothing that grows with the image. Kinds that are not supported (CMYK,
// 16 bit, animation) and zero sizes are refused here.
absl::StatusOr<ImageSize> ReadJpegSize(absl::string_view bytes);
absl::StatusOr<ImageSize> ReadPngSize(absl::string_view bytes);
absl::StatusOr<ImageSize> ReadWebpSize(absl::string_view bytes);

// `size` is what Read*Size returned for the same bytes; rgb has size.width * size.height * 3 bytes
// and is unspecified after an error.
absl::Status DecodeJpeg(absl::string_view bytes, ImageSize size, uint8_t* rgb);
absl::Status DecodePng(absl::string_view bytes, ImageSize size, uint8_t* rgb);
absl::Status DecodeWebp(absl::string_view bytes, ImageSize size, uint8_t* rgb);

// The few ways in which a file is wrong, in our words.
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
