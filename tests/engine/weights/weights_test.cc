#include "engine/weights/weights.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/json.h"
#include "engine/weights/safetensors.h"
#include "gmock/gmock.h"
#include "tests/support/paths.h"
#include "tests/support/status_matchers.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::string Container(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  return file + header + data;
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  int64_t begin, int64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                      "],\"data_offsets\":[", begin, ",", end, "]}");
}

class WeightsTest : public testing::Test {
 protected:
  WeightsTest()
      : dir_(absl::StrCat(testing::TempDir(), "/weights_",
                          testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~WeightsTest() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << content;
  }
  absl::Status OpenHeader(const std::string& header, const std::string& data) {
    Write("model.safetensors", Container(header, data));
    return OpenSafetensors(dir_).status();
  }

  std::string dir_;
};

std::vector<float> Values(TensorSource& source, absl::string_view name,
                          const std::vector<int64_t>& shape) {
  const auto tensor = source.Find(name, shape);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return tensor.ok() ? ToFloats(*tensor) : std::vector<float>();
}

TEST(DemoWeightsTest, EveryTensorOfTheIndexIsFoundByItsCanonicalName) {
  const std::string dir = SourcePath("models/demo");
  const auto source = OpenSafetensors(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto index = *ReadJsonFile(dir + "/model.safetensors.index.json");
  for (const auto& [name, file] : index["weight_map"].items()) {
    EXPECT_TRUE((*source)->Has(CanonicalTensorName(name))) << name;
  }
  EXPECT_TRUE((*source)->Find("language_model.embed_tokens.weight", {576, 256}).ok());
  EXPECT_TRUE((*source)->Find("lm_head.weight", {576, 256}).ok());
  const auto norm = (*source)->Find("language_model.norm.weight", {256});
  ASSERT_TRUE(norm.ok()) << norm.status();
  EXPECT_EQ(norm->dtype, DType::kBF16);
  for (float v : ToFloats(*norm)) EXPECT_TRUE(std::isfinite(v));
  EXPECT_TRUE(Fails((*source)->Find("lm_head.weight", {256, 576}), kInvalid,
                    {"safetensors", "lm_head.weight", "[576, 256]", "[256, 576]"}));
  EXPECT_TRUE(Fails((*source)->Find("nothing", {1}), absl::StatusCode::kNotFound, {"nothing"}));
  EXPECT_FALSE((*source)->Has("nothing"));
}

TEST(CanonicalTensorNameTest, BothLayoutsMeet) {
  const std::pair<const char*, const char*> cases[] = {
      {"language_model.model.layers.0.mlp.up_proj.weight",
       "language_model.layers.0.mlp.up_proj.weight"},
      {"model.language_model.layers.0.mlp.up_proj.weight",
       "language_model.layers.0.mlp.up_proj.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"model.vision_tower.vision_model.x", "vision_tower.vision_model.x"},
      {"vision_tower.vision_model.x", "vision_tower.vision_model.x"},
      {"model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"},
      {"multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"},
      {"model.other", "model.other"}};
  for (const auto& [from, to] : cases) EXPECT_EQ(CanonicalTensorName(from), to);
}

TEST_F(WeightsTest, ReadsEveryDTypeAtAnyAlignment) {
  const std::string data(
      "\x00\x00\x80\x3f\x00\x00\x00\xc0"
      "\x00\x3c\x00\xc0"
      "\x80\x3f\x00\xc0\x00\x00",
      18);
  const std::string tensors = Entry("a", "F32", "2,1", 0, 8) + "," + Entry("b", "F16", "2", 8, 12) +
                              "," + Entry("c", "BF16", "3", 12, 18) + "," +
                              Entry("empty", "F32", "0,5", 18, 18) +
                              ",\"__metadata__\":{\"x\":\"y\"}";
  for (int padding = 0; padding < 8; ++padding) {
    Write("model.safetensors", Container("{" + tensors + "}" + std::string(padding, ' '), data));
    const auto source = OpenSafetensors(dir_);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_THAT(Values(**source, "a", {2, 1}), ElementsAre(1.0f, -2.0f));
    EXPECT_THAT(Values(**source, "b", {2}), ElementsAre(1.0f, -2.0f));
    EXPECT_THAT(Values(**source, "c", {3}), ElementsAre(1.0f, -2.0f, 0.0f));
    EXPECT_THAT(Values(**source, "empty", {0, 5}), ElementsAre());
    EXPECT_FALSE((*source)->Has("__metadata__"));
  }
}

TEST_F(WeightsTest, ScalarsAndFilesWithoutTensors) {
  EXPECT_TRUE(OpenHeader("{" + Entry("s", "F16", "", 0, 2) + "}", "ab").ok());
  EXPECT_TRUE(OpenHeader("{}", "").ok());
}

TEST_F(WeightsTest, OtherDTypesAreFineUntilAskedFor) {
  Write("model.safetensors", Container("{" + Entry("ids", "I64", "2", 0, 16) + "," +
                                           Entry("q", "F8_E8M0", "5", 16, 19) + "}",
                                       std::string(19, 'x')));
  const auto source = OpenSafetensors(dir_);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->Has("ids"));
  EXPECT_TRUE(
      Fails((*source)->Find("ids", {2}), kUnimplemented, {"model.safetensors", "ids", "I64"}));
  EXPECT_TRUE(Fails((*source)->Find("q", {5}), kUnimplemented, {"F8_E8M0"}));
}

TEST_F(WeightsTest, RefusesBrokenHeaders) {
  const std::string ok = Entry("t", "F32", "2", 0, 8);
  const std::string data(8, 'x');
  ASSERT_TRUE(OpenHeader("{" + ok + "}", data).ok());
  const auto fails = [&](const std::string& entry, const std::string& bytes, const char* why) {
    return Fails(OpenHeader("{" + entry + "}", bytes), kInvalid, {"model.safetensors", why});
  };
  EXPECT_TRUE(fails(Entry("t", "F32", "3", 0, 8), data, "needs 12 bytes"));
  EXPECT_TRUE(fails(Entry("t", "F32", "-2", 0, 8), data, "bad shape"));
  EXPECT_TRUE(fails(Entry("t", "F32", "2.0", 0, 8), data, "bad shape"));
  EXPECT_TRUE(fails(Entry("t", "F32", "4611686018427387904", 0, 8), data, "bad shape"));
  EXPECT_TRUE(fails(Entry("t", "F32", "4294967296,4294967296", 0, 8), data, "overflows"));
  EXPECT_TRUE(fails(Entry("t", "F32", "4294967296,4294967296,0", 0, 0), "", "overflows"));
  EXPECT_TRUE(fails(Entry("t", "F32", "2305843009213693952,2", 0, 8), data, "overflows"));
  EXPECT_TRUE(fails(Entry("t", "F32", "1,1,1,1,1,1,1,1,2", 0, 8), data, "dimensions"));
  EXPECT_TRUE(fails(Entry("t", "F32", "2", 8, 0), data, "data_offsets"));
  EXPECT_TRUE(fails(Entry("t", "F32", "2", -8, 0), data, "data_offsets"));
  EXPECT_TRUE(fails(Entry("", "F32", "2", 0, 8), data, "name is empty"));
  EXPECT_TRUE(fails("\"t\":[]", data, "needs dtype"));
  EXPECT_TRUE(fails("\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}", data, "needs"));
  EXPECT_TRUE(fails(ok + "," + ok, data, "duplicate key"));
  EXPECT_TRUE(fails(ok + "," + Entry("u", "F32", "1", 4, 8), data, "overlap or hole"));
  EXPECT_TRUE(fails(ok + "," + Entry("u", "F32", "1", 12, 16), data + data, "overlap or hole"));
  EXPECT_TRUE(fails(Entry("u", "F32", "1", 4, 8), data, "overlap or hole"));
  EXPECT_TRUE(fails(ok, data + "x", "belong to no tensor"));
  EXPECT_TRUE(Fails(OpenHeader("{" + ok + "}", "xxx"), kDataLoss, {"truncated"}));
  EXPECT_TRUE(Fails(OpenHeader("[]", ""), kInvalid, {"not an object"}));
  EXPECT_TRUE(Fails(OpenHeader("{", ""), kInvalid, {"not valid JSON"}));
}

TEST_F(WeightsTest, RefusesBrokenFiles) {
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), absl::StatusCode::kNotFound, {"model.safetensors"}));
  Write("model.safetensors", "");
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), kDataLoss, {"empty"}));
  Write("model.safetensors", "1234567");
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), kDataLoss, {"truncated"}));
  Write("model.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), kInvalid, {"header"}));
  Write("model.safetensors", std::string("\x09\0\0\0\0\0\0\0{}", 10));
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), kDataLoss, {"truncated"}));
}

TEST_F(WeightsTest, ShardsAreHeldToTheIndex) {
  const auto index = [&](const std::string& map) {
    Write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
    return OpenSafetensors(dir_).status();
  };
  Write("a.safetensors",
        Container("{" + Entry("language_model.model.x", "F32", "1", 0, 4) + "}", "abcd"));
  Write("b.safetensors", Container("{" + Entry("y", "F32", "1", 0, 4) + "}", "abcd"));
  Write("again.safetensors",
        Container("{" + Entry("model.language_model.x", "F32", "1", 0, 4) + "}", "abcd"));
  EXPECT_TRUE(index(R"("language_model.model.x":"a.safetensors","y":"b.safetensors")").ok());
  EXPECT_TRUE((*OpenSafetensors(dir_))->Has("language_model.x"));
  EXPECT_TRUE(
      Fails(index(R"("y":"a.safetensors")"), kDataLoss, {"index", "\"y\"", "a.safetensors"}));
  EXPECT_TRUE(Fails(index(R"("language_model.x":"a.safetensors")"), kDataLoss, {"not in"}));
  EXPECT_TRUE(
      Fails(index(R"("z":"c.safetensors")"), absl::StatusCode::kNotFound, {"c.safetensors"}));
  EXPECT_TRUE(Fails(
      index(
          R"("language_model.model.x":"a.safetensors","model.language_model.x":"again.safetensors")"),
      kInvalid, {"already in", "a.safetensors"}));
  for (const char* name :
       {"../a.safetensors", "/etc/passwd", "sub/a", "..", ".", "", "a\\u0000b"}) {
    EXPECT_TRUE(Fails(index(absl::StrCat("\"y\":\"", name, "\"")), kInvalid, {"plain file name"}))
        << name;
  }
  EXPECT_TRUE(Fails(index("\"y\":7"), kInvalid, {"plain file name"}));
  Write("model.safetensors.index.json", "{}");
  EXPECT_TRUE(Fails(OpenSafetensors(dir_), kInvalid, {"weight_map"}));
  std::filesystem::create_directory(dir_ + "/folder");
  EXPECT_TRUE(Fails(index(R"("y":"folder")"), kInvalid, {"not a regular file"}));
}

TEST(SafetensorsTest, DamagedHeadersDoNoHarm) {
  const std::string good =
      Container("{" + Entry("a", "F32", "2,3", 0, 24) + "," + Entry("b", "BF16", "4", 24, 32) + "}",
                std::string(32, 'x'));
  ASSERT_TRUE(ParseSafetensors(good, "t").ok());
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(ParseSafetensors(good.substr(0, n), "t").ok());
  std::mt19937 random(2);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    bad[random() % bad.size()] = static_cast<char>(random());
    const auto header = ParseSafetensors(bad, "t");
    if (!header.ok()) continue;
    for (const SafetensorsEntry& entry : header->tensors) {
      EXPECT_LE(entry.begin, entry.end);
      EXPECT_LE(header->data_offset + entry.end, static_cast<int64_t>(bad.size()));
    }
  }
}

// --- dummy weights

TEST(DummyWeightsTest, NormalByNameAndSeed) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const auto source = MakeDummyWeights(dtype, 1);
    const std::vector<float> w = Values(*source, "x.weight", {512, 513});
    double mean = 0, square = 0;
    int beyond_two_sigma = 0;
    for (float v : w) {
      mean += v, square += double{v} * v;
      beyond_two_sigma += std::abs(v) > 0.04f;
    }
    // Five standard errors of each statistic of n normal values.
    const double n = static_cast<double>(w.size());
    EXPECT_LT(std::abs(mean / n), 5 * 0.02 / std::sqrt(n));
    // bfloat16 rounding adds at most 2^-9 relative to each value.
    EXPECT_LT(std::abs(std::sqrt(square / n) / 0.02 - 1), 5 / std::sqrt(2 * n) + 0x1p-9);
    const double p = std::erfc(std::sqrt(2.0));
    const double rounding = dtype == DType::kBF16 ? 0.001 : 0.0002;  // of the values next to 0.04
    EXPECT_LT(std::abs(beyond_two_sigma / n - p), 5 * std::sqrt(p / n) + rounding);
    EXPECT_EQ(Values(*MakeDummyWeights(dtype, 1), "x.weight", {512, 513}), w);
    EXPECT_NE(Values(*MakeDummyWeights(dtype, 2), "x.weight", {512, 513}), w);
    EXPECT_NE(Values(*source, "y.weight", {512, 513}), w);
  }
}

TEST(DummyWeightsTest, AValueDependsOnItsPlaceAlone) {
  // Threads share the work on large tensors; these two are split at different elements.
  const auto source = MakeDummyWeights(DType::kBF16, 1);
  const std::vector<float> whole = Values(*source, "x.weight", {3 << 20 | 3});
  std::vector<float> part = Values(*source, "x.weight", {2 << 20});
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin()));
  part = Values(*source, "x.weight", {1001});
  EXPECT_TRUE(std::equal(part.begin(), part.end() - 1, whole.begin()));
}

TEST(DummyWeightsTest, NormsAreOneAndBiasesZero) {
  const auto source = MakeDummyWeights(DType::kBF16, 1);
  EXPECT_TRUE(source->Has("anything"));
  for (float v : Values(*source, "language_model.layers.0.input_layernorm.weight", {9}))
    EXPECT_EQ(v, 1.0f);
  for (float v : Values(*source, "vision_tower.vision_model.pre_layrnorm.weight", {9}))
    EXPECT_EQ(v, 1.0f);
  for (float v : Values(*source, "vision_tower.vision_model.pre_layrnorm.bias", {9}))
    EXPECT_EQ(v, 0.0f);
  for (float v : Values(*source, "q_proj.bias", {9})) EXPECT_EQ(v, 0.0f);
  EXPECT_FALSE(source->Find("x", {-1}).ok());
  EXPECT_FALSE(source->Find("x", {int64_t{1} << 40, int64_t{1} << 40}).ok());
  EXPECT_TRUE(Values(*source, "none", {0, 7}).empty());
}

TEST(DummyWeightsTest, ViewsLiveForEightMoreAndRepeatsCostNothing) {
  const auto source = MakeDummyWeights(DType::kF32, 1);
  const auto first = source->Find("w0", {1000});
  const std::vector<float> values = ToFloats(*first);
  for (int i = 1; i <= 8; ++i) ASSERT_TRUE(source->Find(absl::StrCat("w", i), {1000}).ok());
  EXPECT_EQ(ToFloats(*first), values);  // AddressSanitizer reports a freed view
  EXPECT_EQ(source->Find("w0", {1000})->data, first->data);
  for (int i = 10; i < 18; ++i) ASSERT_TRUE(source->Find(absl::StrCat("w", i), {1000}).ok());
  EXPECT_EQ(source->Find("w0", {1000})->data, first->data);  // Find made it the newest
}

}  // namespace
}  // namespace tessera
