// JPEG by libjpeg-turbo with its default settings (accurate integer DCT, fancy upsampling), which
// Pillow uses too.
#include <csetjmp>
#include <cstddef>
#include <cstdio>  // jpeglib.h needs FILE

// clang-format off: jerror.h needs jpeglib.h
#include <jerror.h>
#include <jpeglib.h>
// clang-format on

#include <algorithm>

#include "base/base.h"
#include "vision/codecs/codec.h"

namespace tessera {
namespace {

constexpr char kFormat[] = "JPEG";

// A progressive file may have any number of nearly empty scans, and each scan walks over all
// coefficients. Encoders write about 10. The larger the image, the fewer scans are allowed.
constexpr int kMinScanLimit = 20;
constexpr int kMaxScanLimit = 100;
constexpr int64_t kScanPixels = int64_t{1} << 30;

// The coefficients of a progressive image take 2 bytes x 3 components per pixel, plus MCU padding.
constexpr int64_t kMemoryPerPixel = 8;
constexpr int64_t kMemoryBase = 32 << 20;

constexpr int kTooManyScans = -1;  // distinct from libjpeg's message codes, which are >= 0

// libjpeg reports errors by longjmp. A function that calls it after setjmp may only have trivially
// destructible locals. Everything with a destructor lives in this class or in its user.
class JpegReader {
 public:
  explicit JpegReader(absl::string_view bytes) : bytes_(bytes) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = &JpegReader::OnError;
    errors_.emit_message = &JpegReader::OnMessage;
    errors_.output_message = [](j_common_ptr) {};
    progress_.progress_monitor = &JpegReader::OnProgress;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }  // safe even if never created: info_ is zeroed
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // Returns false on failure; code() has the reason.
  bool ReadHeader() {
    if (setjmp(jump_) != 0) return false;
    jpeg_create_decompress(&info_);
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                 static_cast<unsigned long>(bytes_.size()));
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  // Decodes to rgb [height, width, 3]. REQUIRES: ReadHeader returned true.
  bool Decode(uint8_t* rgb) {
    if (setjmp(jump_) != 0) return false;
    const int64_t pixels = int64_t{info_.image_width} * info_.image_height;
    info_.mem->max_memory_to_use = static_cast<long>(kMemoryBase + kMemoryPerPixel * pixels);
    info_.progress = &progress_;
    info_.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info_);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = rgb + size_t{3} * info_.output_width * info_.output_scanline;
      jpeg_read_scanlines(&info_, &row, 1);
    }
    jpeg_finish_decompress(&info_);  // reads up to the end marker, so it detects a file cut there
    return true;
  }

  const jpeg_decompress_struct& info() const { return info_; }
  int code() const { return code_; }

 private:
  static JpegReader& Self(j_common_ptr info) {
    return *static_cast<JpegReader*>(info->client_data);
  }

  [[noreturn]] void Fail(int code) {
    code_ = code;
    longjmp(jump_, 1);
  }

  [[noreturn]] static void OnError(j_common_ptr info) { Self(info).Fail(info->err->msg_code); }

  // Level -1 is a warning: libjpeg continues with invented data. Only warnings that leave the
  // pixels intact are ignored.
  static void OnMessage(j_common_ptr info, int level) {
    if (level >= 0) return;  // trace
    switch (info->err->msg_code) {
      case JWRN_ADOBE_XFORM:
      case JWRN_EXTRANEOUS_DATA:
      case JWRN_JFIF_MAJOR:
        return;
      default:
        Self(info).Fail(info->err->msg_code);
    }
  }

  static void OnProgress(j_common_ptr info) {
    JpegReader& self = Self(info);
    const int64_t pixels = int64_t{self.info_.image_width} * self.info_.image_height;
    const int64_t limit = std::clamp<int64_t>(kScanPixels / pixels, kMinScanLimit, kMaxScanLimit);
    if (self.info_.input_scan_number > limit) self.Fail(kTooManyScans);
  }

  absl::string_view bytes_;
  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  jmp_buf jump_;
  int code_ = 0;
};

absl::Status Failure(int code) {
  switch (code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:  // the entropy-coded data ends before the image does
      return TruncatedImage(kFormat);
    case JERR_EMPTY_IMAGE:
      return EmptyImage(kFormat);
    case JERR_BAD_PRECISION:
      return UnsupportedImage(kFormat, "not 8 bits a sample");
    case JERR_SOF_UNSUPPORTED:
      return UnsupportedImage(kFormat, "lossless or hierarchical coding");
    case kTooManyScans:
      return UnsupportedImage(kFormat, "too many progressive scans for its size");
    default:
      return CorruptImage(kFormat);
  }
}

}  // namespace

bool IsJpeg(absl::string_view bytes) { return bytes.substr(0, 3) == "\xff\xd8\xff"; }

absl::StatusOr<ImageSize> ReadJpegSize(absl::string_view bytes) {
  JpegReader reader(bytes);
  const bool ok = reader.ReadHeader();
  const jpeg_decompress_struct& info = reader.info();
  // The size is known even when it exceeds libjpeg's own maximum; the limits will refuse it.
  if (!ok && reader.code() != JERR_IMAGE_TOO_BIG) return Failure(reader.code());
  if (ok && info.num_components == 4) return UnsupportedImage(kFormat, "CMYK; send RGB");
  if (ok && info.num_components != 3 && info.num_components != 1) {
    return UnsupportedImage(kFormat, absl::StrCat(info.num_components, " components"));
  }
  return ImageSize{static_cast<int>(info.image_width), static_cast<int>(info.image_height)};
}

absl::Status DecodeJpeg(absl::string_view bytes, ImageSize size, uint8_t* rgb) {
  JpegReader reader(bytes);
  if (!reader.ReadHeader()) return Failure(reader.code());
  TESSERA_CHECK(static_cast<int>(reader.info().image_width) == size.width &&
                static_cast<int>(reader.info().image_height) == size.height);
  if (!reader.Decode(rgb)) return Failure(reader.code());
  return absl::OkStatus();
}

}  // namespace tessera
