#include "vision/processor/resize.h"

#include <gtest/gtest.h>

#include "tests/vision/test_images.h"

namespace tessera {
namespace {

TEST(ResizeTest, EqualsPillowByteForByte) {
  const auto rows = ReadTable("resize.tsv");
  ASSERT_EQ(rows.size(), 250u);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 8u);
    const Image in = Synthetic(row[0], std::stoull(row[1]), std::stoi(row[2]), std::stoi(row[3]));
    const Image out =
        Resize(in, std::stoi(row[4]), std::stoi(row[5]), static_cast<Resample>(std::stoi(row[6])));
    EXPECT_EQ(Sha256(out.rgb), row[7])
        << row[0] << " " << in.width << "x" << in.height << " -> " << row[4] << "x" << row[5];
  }
}

TEST(ResizeTest, SameSizeIsACopy) {
  const Image in = Synthetic("noise", 3, 41, 37);
  EXPECT_EQ(Resize(in, 41, 37, Resample::kBicubic).rgb, in.rgb);
  EXPECT_EQ(Resize(in, 41, 37, Resample::kBilinear).rgb, in.rgb);
}

TEST(ResizeTest, WindowIsThatPartOfTheWhole) {
  struct Case {
    int width, height;
    Window window;
  };
  const Image in = Synthetic("noise", 4, 83, 59);
  for (const Case& c : {Case{200, 160, {50, 40, 100, 80}}, Case{31, 17, {0, 0, 31, 17}},
                        Case{31, 17, {30, 16, 1, 1}}, Case{83, 120, {0, 119, 83, 1}},
                        Case{40, 59, {7, 3, 20, 50}}}) {
    for (Resample filter : {Resample::kBicubic, Resample::kBilinear}) {
      const Image whole = Resize(in, c.width, c.height, filter);
      const Image part = ResizeWindow(in, c.width, c.height, c.window, filter);
      ASSERT_EQ(part.width, c.window.width);
      ASSERT_EQ(part.height, c.window.height);
      for (int y = 0; y < part.height; ++y) {
        for (int i = 0; i < 3 * part.width; ++i) {
          ASSERT_EQ(part.rgb[y * 3 * part.width + i],
                    whole.rgb[((c.window.top + y) * c.width + c.window.left) * 3 + i]);
        }
      }
    }
  }
}

TEST(ResizeTest, WindowOfAnEnormousImageIsCheap) {
  const Image in = Synthetic("gradient", 5, 16384, 1);  // whole: 5.5 million x 336 pixels
  const Image part =
      ResizeWindow(in, 16384 * 336, 336, {16384 * 168, 0, 336, 336}, Resample::kBicubic);
  EXPECT_EQ(part.rgb.size(), 3u * 336 * 336);
  EXPECT_NEAR(part.rgb[0], 127, 1);  // the middle of the gradient
}

}  // namespace
}  // namespace tessera
