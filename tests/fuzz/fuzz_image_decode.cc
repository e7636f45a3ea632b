// Fuzzes the image decoders. Any input gives pixels of the promised size or a promised error.
#include "absl/strings/string_view.h"
#include "base/base.h"
#include "vision/codecs/decode.h"
#include "vision/processor/processor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  ImageLimits limits;  // small images, so that the fuzzer spends its time on code paths
  limits.max_bytes = 1 << 20;
  limits.max_pixels = 1 << 18;
  limits.max_side = 4096;

  const absl::StatusOr<ImageSize> header = ReadImageSize(bytes, "", limits);
  const absl::StatusOr<Image> image = DecodeImage(bytes, "", limits);
  if (!image.ok()) {
    TESSERA_CHECK(image.status().code() == absl::StatusCode::kInvalidArgument ||
                  image.status().code() == absl::StatusCode::kResourceExhausted);
    TESSERA_CHECK(header.ok() || header.status() == image.status());
    return 0;
  }
  TESSERA_CHECK(header.ok());
  TESSERA_CHECK(header->width == image->width && header->height == image->height);
  TESSERA_CHECK(int64_t{image->width} * image->height <= limits.max_pixels);
  TESSERA_CHECK(image->rgb.size() == size_t{3} * image->width * image->height);

  ProcessorConfig config;
  config.shortest_edge = config.crop = 28;
  config.do_pad = (size & 1) != 0;
  const absl::StatusOr<PreparedImage> prepared = PrepareImage(*image, config, limits);
  TESSERA_CHECK(prepared.ok() ? prepared->rgb.size() == 3 * 28 * 28
                              : prepared.status().code() == absl::StatusCode::kInvalidArgument);
  return 0;
}
