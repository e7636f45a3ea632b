#include "vision/codecs/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/vision/test_images.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

std::string BigEndian32(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

std::string Chunk(const std::string& kind, const std::string& data) {
  const std::string body = absl::StrCat(kind, data);
  const uLong crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return absl::StrCat(BigEndian32(data.size()), body, BigEndian32(crc));
}

// Returns a grey PNG whose compressed stream holds `stream`, which may be longer than the image.
std::string Png(int width, int height, const std::string& stream) {
  std::string packed(compressBound(stream.size()), '\0');
  uLongf size = packed.size();
  EXPECT_EQ(compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
                      reinterpret_cast<const Bytef*>(stream.data()), stream.size(), 9),
            Z_OK);
  packed.resize(size);
  const std::string header =
      absl::StrCat(BigEndian32(width), BigEndian32(height), std::string("\x08\0\0\0\0", 5));
  return absl::StrCat("\x89PNG\r\n\x1a\n", Chunk("IHDR", header), Chunk("IDAT", packed),
                      Chunk("IEND", ""));
}

std::string WithChunk(const std::string& png, const std::string& chunk) {
  return absl::StrCat(png.substr(0, 33), chunk, png.substr(33));  // after IHDR
}

TEST(DecodeTest, EqualsPillow) {
  const auto rows = ReadTable("decode.tsv");
  ASSERT_GE(rows.size(), 55u);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 4u);
    const std::string bytes = ReadGolden(row[0]);
    ASSERT_FALSE(bytes.empty()) << row[0];
    const auto image = DecodeImage(bytes, "", ImageLimits{});
    ASSERT_TRUE(image.ok()) << row[0] << ": " << image.status();
    EXPECT_EQ(image->width, std::stoi(row[1])) << row[0];
    EXPECT_EQ(image->height, std::stoi(row[2])) << row[0];
    EXPECT_EQ(Sha256(image->rgb), row[3]) << row[0];
    const auto size = ReadImageSize(bytes, "", ImageLimits{});
    ASSERT_TRUE(size.ok());
    EXPECT_EQ(size->width, image->width);
    EXPECT_EQ(size->height, image->height);
  }
}

TEST(DecodeTest, EveryTruncationIsAnError) {
  for (const auto& row : ReadTable("decode.tsv")) {
    const std::string bytes = ReadGolden(row[0]);
    std::vector<size_t> lengths = {bytes.size() - 1, bytes.size() - 2, bytes.size() - 5};
    for (int tenth = 0; tenth < 10; ++tenth) lengths.push_back(bytes.size() * tenth / 10);
    for (size_t length : lengths) {
      const auto image = DecodeImage(bytes.substr(0, length), "", ImageLimits{});
      EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument)
          << row[0] << " cut to " << length;
      if (length >= 12) {
        EXPECT_THAT(std::string(image.status().message()), HasSubstr("truncated")) << row[0];
      }
    }
  }
}

struct BadInput {
  std::string name;
  std::string bytes;
  std::string mime;
  absl::StatusCode code;
  std::vector<std::string> message;  // all must occur
};

std::vector<BadInput> BadInputs() {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto exhausted = absl::StatusCode::kResourceExhausted;
  const std::string png = ReadGolden("rgb.png"), jpeg = ReadGolden("rgb_420.jpg");
  const auto golden = ReadGolden;
  return {
      {"empty", "", "", invalid, {"empty"}},
      {"unknown", "GIF89a..........", "", invalid, {"not a JPEG, PNG or WebP"}},
      {"unknown with mime", "hello", "image/png", invalid, {"not a JPEG, PNG or WebP"}},
      {"wrong mime", png, "image/jpeg", invalid, {"says image/jpeg", "are image/png"}},
      {"wrong mime 2", jpeg, "image/webp", invalid, {"says image/webp", "are image/jpeg"}},
      {"foreign mime", jpeg, "text/html", invalid, {"mime type is not", "are image/jpeg"}},
      {"too many bytes",
       absl::StrCat(jpeg, std::string(20 << 20, 'x')),
       "",
       exhausted,
       {absl::StrCat(jpeg.size() + (20 << 20)), "20971520"}},
      {"huge png", golden("bad_huge.png"), "", exhausted, {"50000 x 50000", "16384"}},
      {"huge jpeg", golden("bad_huge.jpg"), "", exhausted, {"65500 x 65500", "16384"}},
      {"huge jpeg 2", golden("bad_huge_beyond_libjpeg.jpg"), "", exhausted, {"65535", "16384"}},
      {"huge webp",
       golden("bad_huge.webp"),
       "",
       exhausted,
       {"16384 x 16384", "268435456", "64000000"}},
      {"zero png", golden("bad_zero.png"), "", invalid, {"zero width or height"}},
      {"zero jpeg", golden("bad_zero.jpg"), "", invalid, {"zero width or height"}},
      {"zero jpeg 2", golden("bad_zero_width.jpg"), "", invalid, {"zero width or height"}},
      {"zero webp", golden("bad_zero.webp"), "", invalid, {"corrupt WebP"}},
      {"cmyk", golden("bad_cmyk.jpg"), "", invalid, {"CMYK"}},
      {"scans", golden("bad_scans.jpg"), "", invalid, {"too many progressive scans"}},
      {"16 bit", golden("bad_16bit.png"), "", invalid, {"16 bits"}},
      {"16 bit grey", golden("bad_16bit_grey.png"), "", invalid, {"16 bits"}},
      {"no palette", golden("bad_no_palette.png"), "", invalid, {"corrupt PNG"}},
      {"few rows", golden("bad_too_few_rows.png"), "", invalid, {"corrupt PNG"}},
      {"crc", golden("bad_crc.png"), "", invalid, {"corrupt PNG"}},
      {"animated", golden("bad_animated.webp"), "", invalid, {"animation"}},
      // 100 MB of zeros after a 4-pixel image.
      {"tail bomb", Png(2, 2, std::string(100 << 20, '\0')), "", invalid, {"corrupt PNG"}},
      {"chunk beyond the end",
       WithChunk(png, absl::StrCat(BigEndian32(0x7fffffff), "tEXtabc")),
       "",
       invalid,
       {"PNG"}},
      {"end marker too early",
       absl::StrCat(jpeg.substr(0, jpeg.size() * 2 / 3), "\xff\xd9"),
       "",
       invalid,
       {"truncated JPEG"}},
      {"tables only", std::string("\xff\xd8\xff\xd9"), "", invalid, {"JPEG"}},
  };
}

TEST(DecodeTest, BadInputTable) {
  for (const BadInput& bad : BadInputs()) {
    const auto image = DecodeImage(bad.bytes, bad.mime, ImageLimits{});
    EXPECT_EQ(image.status().code(), bad.code) << bad.name << ": " << image.status();
    for (const std::string& part : bad.message) {
      EXPECT_THAT(std::string(image.status().message()), HasSubstr(part)) << bad.name;
    }
  }
}

TEST(DecodeTest, LimitsAreInclusive) {
  const std::string png = ReadGolden("rgb.png");  // 37 x 29
  ImageLimits limits;
  limits.max_bytes = static_cast<int64_t>(png.size());
  limits.max_pixels = 37 * 29;
  limits.max_side = 37;
  EXPECT_TRUE(DecodeImage(png, "", limits).ok());
  EXPECT_TRUE(ReadImageSize(png, "", limits).ok());
  for (int field = 0; field < 3; ++field) {
    ImageLimits tight = limits;
    if (field == 0) --tight.max_bytes;
    if (field == 1) --tight.max_pixels;
    if (field == 2) --tight.max_side;
    EXPECT_EQ(DecodeImage(png, "", tight).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReadImageSize(png, "", tight).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(DecodeTest, HeaderIsEnoughForTheSize) {
  for (const char* name : {"rgb.png", "rgb_420.jpg", "lossy.webp", "lossless.webp"}) {
    const std::string bytes = ReadGolden(name);
    const auto whole = ReadImageSize(bytes, "", ImageLimits{});
    const auto part = ReadImageSize(bytes.substr(0, bytes.size() * 3 / 4), "", ImageLimits{});
    ASSERT_TRUE(whole.ok() && part.ok()) << name << part.status();
    EXPECT_EQ(part->width, whole->width);
    EXPECT_EQ(part->height, whole->height);
  }
}

TEST(DecodeTest, MimeIsCaseInsensitiveAndMayHaveParameters) {
  const std::string jpeg = ReadGolden("grey.jpg"), png = ReadGolden("grey1.png");
  for (const char* mime : {"image/jpeg", "Image/JPEG", "image/jpg", " image/jpeg ; q=0.5"}) {
    EXPECT_TRUE(DecodeImage(jpeg, mime, ImageLimits{}).ok()) << mime;
    EXPECT_FALSE(DecodeImage(png, mime, ImageLimits{}).ok()) << mime;
  }
}

// Text, profiles and compressed text of any length must neither be stored nor inflated.
TEST(DecodeTest, AncillaryChunksAreSkipped) {
  const std::string png = ReadGolden("rgb.png");
  const auto plain = DecodeImage(png, "", ImageLimits{});
  ASSERT_TRUE(plain.ok());
  for (const char* kind : {"tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "sPLT", "prIv"}) {
    const std::string giant = Chunk(kind, std::string(9 << 20, 'x'));
    const auto image = DecodeImage(WithChunk(png, giant), "", ImageLimits{});
    ASSERT_TRUE(image.ok()) << kind << ": " << image.status();
    EXPECT_EQ(plain->rgb, image->rgb) << kind;
  }
}

// Any bytes must give one of the documented results without a crash (run under address sanitizer).
TEST(DecodeTest, RandomAndMutatedBytes) {
  std::mt19937 random(11);
  const auto check = [](const std::string& bytes) {
    ImageLimits limits;
    limits.max_pixels = 1 << 20;
    const auto image = DecodeImage(bytes, "", limits);
    if (image.ok()) {
      EXPECT_EQ(image->rgb.size(), size_t{3} * image->width * image->height);
      return;
    }
    const absl::StatusCode code = image.status().code();
    EXPECT_TRUE(code == absl::StatusCode::kInvalidArgument ||
                code == absl::StatusCode::kResourceExhausted)
        << image.status();
  };
  for (const auto& row : ReadTable("decode.tsv")) {
    const std::string original = ReadGolden(row[0]);
    for (int i = 0; i < 30; ++i) {
      std::string bytes = original;
      for (int flips = 1 + i % 4; flips > 0; --flips) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      check(bytes);
    }
    std::string noise = original.substr(0, 16);
    for (int i = 0; i < 500; ++i) noise.push_back(static_cast<char>(random()));
    EXPECT_FALSE(DecodeImage(noise, "", ImageLimits{}).ok()) << row[0];
    EXPECT_FALSE(DecodeImage(noise.substr(16), "", ImageLimits{}).ok());
  }
}

}  // namespace
}  // namespace tessera
