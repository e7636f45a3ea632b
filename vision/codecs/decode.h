// Compressed image bytes -> RGB8, by the system's libjpeg-turbo, libpng and libwebp.
//
// Pixels are those of Pillow's Image.open(...).convert("RGB"): grey and palette are expanded, alpha
// is dropped and not composed, EXIF orientation is not applied. Refused: CMYK and 12-bit JPEG,
// 16-bit PNG, animated WebP, and every file with missing data, also where a library would fill the
// gap. The format is found from the bytes; a `mime` that names another is an error.
// Threads: safe. Errors: INVALID_ARGUMENT (not an image, truncated, mime mismatch, unsupported
// kind), RESOURCE_EXHAUSTED (over a limit, named with both numbers), never a library's own text.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "vision/codecs/image.h"

namespace tessera {

struct ImageSize {
  int width = 0;
  int height = 0;
};

// Reads the header alone: checks the kind and the limits, decodes nothing. A file whose later bytes
// are missing or corrupt may pass. `mime` may be empty (then only the bytes decide).
absl::StatusOr<ImageSize> ReadImageSize(absl::string_view bytes, absl::string_view mime,
                                        const ImageLimits& limits);

// ReadImageSize's checks, then the pixels.
absl::StatusOr<Image> DecodeImage(absl::string_view bytes, absl::string_view mime,
                                  const ImageLimits& limits);

}  // namespace tessera
