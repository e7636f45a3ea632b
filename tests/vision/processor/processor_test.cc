#include "vision/processor/processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/vision/test_images.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

TEST(ProcessorTest, EqualsPillowAndClipGeometry) {
  const auto rows = ReadTable("processor.tsv");
  ASSERT_EQ(rows.size(), 130u);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 7u);
    const Image in = Synthetic(row[0], std::stoull(row[1]), std::stoi(row[2]), std::stoi(row[3]));
    const auto config = ParseProcessorConfig(row[4]);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto out = PrepareImage(in, *config, ImageLimits{});
    ASSERT_TRUE(out.ok()) << out.status();
    EXPECT_EQ(out->side, std::stoi(row[5]));
    EXPECT_EQ(config->side(), out->side);
    EXPECT_EQ(Sha256(out->rgb), row[6]) << in.width << "x" << in.height << " " << row[4];
  }
}

TEST(ProcessorTest, ParsesThePublishedShapes) {
  const auto llava = ParseProcessorConfig(R"({"crop_size": {"height": 336, "width": 336},
      "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true,
      "do_resize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
      "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258,
      0.27577711], "processor_class": "LlavaProcessor", "resample": 3,
      "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 336}})");
  ASSERT_TRUE(llava.ok()) << llava.status();
  EXPECT_EQ(llava->shortest_edge, 336);
  EXPECT_EQ(llava->side(), 336);
  EXPECT_FALSE(llava->do_pad);
  EXPECT_EQ(llava->mean[1], 0.4578275f);
  EXPECT_EQ(llava->pad_color[0], 122);

  const auto old = ParseProcessorConfig(R"({"crop_size": 224, "do_center_crop": true,
      "do_normalize": false, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 2,
      "size": 300, "image_mean": [0.5, 0.25, 1.0], "image_std": [0.5, 0.5, 0.5]})");
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(old->shortest_edge, 300);
  EXPECT_EQ(old->crop, 224);
  EXPECT_EQ(old->resample, Resample::kBilinear);
  EXPECT_EQ(old->mean[0], 0.0f);
  EXPECT_EQ(old->std[0], 1.0f);
  EXPECT_EQ(old->pad_color[1], 63);
  EXPECT_EQ(old->pad_color[2], 255);

  const auto empty = ParseProcessorConfig("{}");
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->side(), 224);
}

TEST(ProcessorTest, RefusesWhatItDoesNotCompute) {
  struct Case {
    std::string json;
    absl::StatusCode code;
    std::string message;
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  const Case cases[] = {
      {"", invalid, "JSON object"},
      {"[]", invalid, "JSON object"},
      {"{", invalid, "JSON object"},
      {R"({"a":[[[[[[[[[[]]]]]]]]]]})", invalid, "JSON object"},
      {std::string(100'000, ' '), invalid, "100000 bytes, the limit is 65536"},
      {R"({"image_processor_type": "Qwen2VLImageProcessor"})", unimplemented,
       "Qwen2VLImageProcessor"},
      {R"({"image_processor_type": 3})", invalid, "image_processor_type"},
      {R"({"do_resize": 1})", invalid, "do_resize"},
      {R"({"size": 0})", invalid, "size"},
      {R"({"size": 5000})", invalid, "size"},
      {R"({"size": 1e99})", invalid, "size"},
      {R"({"size": 99999999999999999999})", invalid, "size"},
      {R"({"size": {"shortest_edge": -3}})", invalid, "size.shortest_edge"},
      {R"({"size": {"shortest_edge": 3, "longest_edge": 5}})", unimplemented, "shortest_edge"},
      {R"({"size": {"height": 3}})", invalid, "size"},
      {R"({"size": {"height": 3, "width": 4}})", unimplemented, "3 x 4"},
      {R"({"crop_size": {"height": 3, "width": 4}})", unimplemented, "crop_size"},
      {R"({"crop_size": "7"})", invalid, "crop_size"},
      {R"({"do_center_crop": false})", unimplemented, "do_center_crop"},
      {R"({"do_center_crop": false, "do_resize": false, "size": {"height": 9, "width": 9}})",
       unimplemented, "do_center_crop"},
      {R"({"resample": 1})", unimplemented, "resample"},
      {R"({"resample": "bicubic"})", invalid, "resample"},
      {R"({"do_rescale": false})", unimplemented, "do_rescale"},
      {R"({"do_convert_rgb": false})", unimplemented, "do_convert_rgb"},
      {R"({"rescale_factor": 0.5})", unimplemented, "rescale_factor"},
      {R"({"image_mean": [0.5, 0.5]})", invalid, "image_mean"},
      {R"({"image_mean": [0.5, 0.5, 1.5]})", invalid, "image_mean"},
      {R"({"image_std": [0.5, 0.5, 0.0]})", invalid, "image_std"},
      {R"({"image_std": [0.5, null, 0.5]})", invalid, "image_std"},
  };
  for (const Case& c : cases) {
    const auto config = ParseProcessorConfig(c.json);
    EXPECT_EQ(config.status().code(), c.code) << c.json.substr(0, 99);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(c.message));
  }
}

TEST(ProcessorTest, DigestCoversContentShapeAndSettings) {
  const Image image = Synthetic("noise", 1, 12, 10);
  Image turned = image;
  std::swap(turned.width, turned.height);
  Image changed = image;
  changed.rgb.back() ^= 1;

  ProcessorConfig base;
  base.crop = base.shortest_edge = 8;
  std::vector<ProcessorConfig> configs(11, base);
  configs[1].do_resize = false;
  configs[2].do_center_crop = false;
  configs[2].squash = 8;
  configs[3].do_pad = true;
  configs[4].shortest_edge = 9;
  configs[5].squash = 9;
  configs[6].crop = 9;
  configs[7].resample = Resample::kBilinear;
  configs[8].mean[2] = 0.5f;
  configs[9].std[0] = 0.5f;
  configs[10].pad_color[1] = 0;

  std::vector<Digest> seen;
  const auto add = [&](const Image& i, const ProcessorConfig& c) {
    const auto prepared = PrepareImage(i, c, ImageLimits{});
    ASSERT_TRUE(prepared.ok());
    const auto again = PrepareImage(i, c, ImageLimits{});
    EXPECT_EQ(prepared->digest, again->digest);
    for (const Digest& d : seen) EXPECT_NE(d, prepared->digest);
    seen.push_back(prepared->digest);
  };
  for (const ProcessorConfig& c : configs) add(image, c);
  add(turned, base);
  add(changed, base);
  EXPECT_EQ(seen.size(), 13u);
}

TEST(ProcessorTest, ExtremeShapes) {
  ProcessorConfig config;
  const Image line{16384, 1, std::vector<uint8_t>(3 * 16384, 77)};
  const auto cropped = PrepareImage(line, config, ImageLimits{});
  ASSERT_TRUE(cropped.ok()) << cropped.status();
  EXPECT_EQ(cropped->rgb, std::vector<uint8_t>(3 * 224 * 224, 77));

  config.do_pad = true;
  const auto padded = PrepareImage(line, config, ImageLimits{});
  EXPECT_EQ(padded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(padded.status().message()), HasSubstr("268435456"));
  EXPECT_THAT(std::string(padded.status().message()), HasSubstr("64000000"));
}

}  // namespace
}  // namespace tessera
