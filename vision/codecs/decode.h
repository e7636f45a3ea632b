// Decodes compressed image bytes to RGB8 with the system's libjpeg-turbo, libpng and libwebp.
//
// The pixels equal Pillow's Image.open(...).convert("RGB"): grey and palette images are expanded,
// alpha is dropped without compositing, and EXIF orientation is not applied. Refused are CMYK and
// 12-bit JPEG, 16-bit PNG, animated WebP, and every file with missing data, even where a library
// would fill the gap. The bytes decide the format; a `mime` that names another format is an error.
//
// Threads: safe. Errors: INVALID_ARGUMENT (not an image, truncated, MIME mismatch, unsupported
// kind), RESOURCE_EXHAUSTED (over a limit; the text has both numbers). Errors never contain a
// library's own text.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "vision/codecs/image.h"

namespace tessera {

struct ImageSize {
  int width = 0;
  int height = 0;
};

// Reads only the header, checks the kind and the limits, and decodes nothing. A file with missing
// or corrupt later bytes may pass. `mime` may be empty; then only the bytes decide.
absl::StatusOr<ImageSize> ReadImageSize(absl::string_view bytes, absl::string_view mime,
                                        const ImageLimits& limits);

// Makes the same checks as ReadImageSize, then decodes the pixels.
absl::StatusOr<Image> DecodeImage(absl::string_view bytes, absl::string_view mime,
                                  const ImageLimits& limits);

}  // namespace tessera
