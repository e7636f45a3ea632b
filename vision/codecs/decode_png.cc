// PNG by libpng as RGB without alpha. All ancillary chunks are skipped unread.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "base/base.h"
#include "vision/codecs/codec.h"

namespace tessera {
namespace {

constexpr char kFormat[] = "PNG";
constexpr absl::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
constexpr size_t kHeaderBytes = 8 + 8 + 13;  // signature, chunk header, IHDR

// Safety limits: skipped chunks are never stored, and the chunks that are read are small.
constexpr png_alloc_size_t kMaxChunkBytes = 64 << 10;
constexpr png_uint_32 kMaxCachedChunks = 16;
// The compressed stream may have this many bytes after the last row's data. libpng inflates such
// bytes only to discard them; without a limit 20 MB of them cost 20 s.
constexpr size_t kMaxTrailingBytes = 64 << 10;

uint32_t BigEndian32(absl::string_view bytes, size_t offset) {
  uint8_t b[4];
  std::memcpy(b, bytes.data() + offset, 4);
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
}

// libpng reports errors by longjmp. A function that calls it after setjmp may only have trivially
// destructible locals.
class PngReader {
 public:
  explicit PngReader(absl::string_view bytes) : bytes_(bytes) {}
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool Decode(ImageSize size, uint8_t* rgb) {
    if (setjmp(jump_) != 0) return false;
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, &PngReader::OnError,
                                  &PngReader::OnWarning);
    if (png_ == nullptr) return false;
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) return false;
    png_set_read_fn(png_, this, &PngReader::OnRead);
    png_set_user_limits(png_, size.width, size.height);
    png_set_chunk_malloc_max(png_, kMaxChunkBytes);
    png_set_chunk_cache_max(png_, kMaxCachedChunks);
    // Colour profiles, gamma, text and transparency do not change the RGB pixels.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    static const png_byte kTransparency[] = "tRNS";
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, kTransparency, 1);

    png_read_info(png_, info_);
    CompletePalette();
    png_set_expand(png_);  // palette -> RGB, grey below 8 bits -> 8 bits
    png_set_gray_to_rgb(png_);
    png_set_strip_alpha(png_);
    const int passes = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (static_cast<int>(png_get_image_width(png_, info_)) != size.width ||
        static_cast<int>(png_get_image_height(png_, info_)) != size.height ||
        png_get_rowbytes(png_, info_) != size_t{3} * size.width) {
      return false;
    }
    const size_t row_bytes = size_t{3} * size.width;
    for (int pass = 0; pass < passes; ++pass) {
      for (int y = 0; y < size.height; ++y) {
        if (pass == passes - 1 && y == size.height - 1) {
          allowance_ = kMaxTrailingBytes + 2 * row_bytes;
        }
        png_read_row(png_, rgb + row_bytes * y, nullptr);
      }
    }
    allowance_ = bytes_.size();
    png_read_end(png_, nullptr);
    return true;
  }

  bool truncated() const { return truncated_; }

 private:
  // Completes a short palette with shades of grey, as Pillow does for pixels that name a missing
  // colour.
  void CompletePalette() {
    png_colorp given = nullptr;
    int count = 0;
    if (png_get_color_type(png_, info_) != PNG_COLOR_TYPE_PALETTE ||
        png_get_PLTE(png_, info_, &given, &count) == 0) {
      return;
    }
    png_color palette[PNG_MAX_PALETTE_LENGTH];
    const int size = 1 << png_get_bit_depth(png_, info_);
    for (int i = 0; i < size; ++i) {
      const png_byte grey = static_cast<png_byte>(i);
      palette[i] = i < count ? given[i] : png_color{grey, grey, grey};
    }
    png_set_PLTE(png_, info_, palette, size);
  }

  [[noreturn]] static void OnError(png_structp png, png_const_charp) {
    longjmp(static_cast<PngReader*>(png_get_error_ptr(png))->jump_, 1);
  }
  static void OnWarning(png_structp, png_const_charp) {}

  static void OnRead(png_structp png, png_bytep out, size_t count) {
    PngReader& self = *static_cast<PngReader*>(png_get_io_ptr(png));
    self.truncated_ = count > self.bytes_.size() - self.offset_;
    if (self.truncated_ || count > self.allowance_) longjmp(self.jump_, 1);
    std::memcpy(out, self.bytes_.data() + self.offset_, count);
    self.offset_ += count;
    self.allowance_ -= count;
  }

  absl::string_view bytes_;
  size_t offset_ = 0;
  size_t allowance_ = SIZE_MAX;  // bytes that may still be read in this phase
  bool truncated_ = false;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  jmp_buf jump_;
};

}  // namespace

bool IsPng(absl::string_view bytes) { return bytes.substr(0, 8) == kSignature; }

absl::StatusOr<ImageSize> ReadPngSize(absl::string_view bytes) {
  if (bytes.size() < kHeaderBytes) return TruncatedImage(kFormat);
  if (BigEndian32(bytes, 8) != 13 || bytes.substr(12, 4) != "IHDR") return CorruptImage(kFormat);
  const uint32_t width = BigEndian32(bytes, 16), height = BigEndian32(bytes, 20);
  if (width == 0 || height == 0) return EmptyImage(kFormat);
  if (width > PNG_UINT_31_MAX || height > PNG_UINT_31_MAX) return CorruptImage(kFormat);
  if (bytes[24] == 16) return UnsupportedImage(kFormat, "16 bits a sample; send 8");
  return ImageSize{static_cast<int>(width), static_cast<int>(height)};
}

absl::Status DecodePng(absl::string_view bytes, ImageSize size, uint8_t* rgb) {
  PngReader reader(bytes);
  if (reader.Decode(size, rgb)) return absl::OkStatus();
  return reader.truncated() ? TruncatedImage(kFormat) : CorruptImage(kFormat);
}

}  // namespace tessera
