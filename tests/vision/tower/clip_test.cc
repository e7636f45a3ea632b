// Compares ClipTower and Projector on the CPU backends with a second implementation in plain loops,
// written from the formulas and not from Ops.
#include "vision/tower/clip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/backend/backend.h"
#include "tests/vision/map_source.h"
#include "vision/tower/projector.h"

namespace tessera {
namespace {

constexpr float kMean[3] = {0.48f, 0.46f, 0.41f};
constexpr float kStd[3] = {0.27f, 0.26f, 0.28f};
constexpr char kPrefix[] = "vision_tower.vision_model";

template <class T>
using Matrix = std::vector<std::vector<T>>;  // [rows][cols]

template <class T>
T Activate(T x, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return x * T(0.5) * (T(1) + std::erf(x / std::sqrt(T(2))));
    case Activation::kQuickGelu:
      return x / (T(1) + std::exp(T(-1.702) * x));
    default:
      return x;
  }
}

// Returns y = x W^T + b. W is [outputs, inputs]; b may be empty.
template <class T>
Matrix<T> Dense(const Matrix<T>& x, const std::vector<double>& w, const std::vector<double>& b,
                size_t outputs) {
  Matrix<T> y(x.size(), std::vector<T>(outputs));
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t o = 0; o < outputs; ++o) {
      T sum = b.empty() ? T(0) : T(b[o]);
      for (size_t i = 0; i < x[r].size(); ++i) sum += x[r][i] * T(w[o * x[r].size() + i]);
      y[r][o] = sum;
    }
  }
  return y;
}

template <class T>
Matrix<T> Normed(Matrix<T> x, const std::vector<double>& w, const std::vector<double>& b, T eps) {
  for (std::vector<T>& row : x) {
    T mean = 0, variance = 0;
    for (T v : row) mean += v / T(row.size());
    for (T v : row) variance += (v - mean) * (v - mean) / T(row.size());
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = (row[i] - mean) / std::sqrt(variance + eps) * T(w[i]) + T(b[i]);
    }
  }
  return x;
}

template <class T>
void AddTo(Matrix<T>& x, const Matrix<T>& y) {
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t i = 0; i < x[r].size(); ++i) x[r][i] += y[r][i];
  }
}

// Runs one image through the tower in arithmetic T.
template <class T>
class PlainTower {
 public:
  PlainTower(const ClipConfig& config, MapSource& source) : c_(config), source_(source) {}

  Matrix<T> Features(const uint8_t* pixels) {
    Matrix<T> x = Embed(pixels);
    x = Normed(x, W(".pre_layrnorm.weight"), W(".pre_layrnorm.bias"), T(c_.eps));
    const int stop = c_.feature_layer < 0 ? c_.layers + 1 + c_.feature_layer : c_.feature_layer;
    for (int layer = 0; layer < stop; ++layer) {
      const std::string p = absl::StrCat(".encoder.layers.", layer);
      AddTo(x, Attend(p + ".self_attn", Normed(x, W(p + ".layer_norm1.weight"),
                                               W(p + ".layer_norm1.bias"), T(c_.eps))));
      Matrix<T> h = Normed(x, W(p + ".layer_norm2.weight"), W(p + ".layer_norm2.bias"), T(c_.eps));
      h = Layer(p + ".mlp.fc1", h, c_.intermediate);
      for (std::vector<T>& row : h) {
        for (T& v : row) v = Activate(v, c_.activation);
      }
      AddTo(x, Layer(p + ".mlp.fc2", h, c_.hidden));
    }
    if (c_.drop_class_token) x.erase(x.begin());
    return x;
  }

 private:
  std::vector<double> W(const std::string& name) { return source_.Values(kPrefix + name); }

  Matrix<T> Layer(const std::string& name, const Matrix<T>& x, size_t outputs) {
    return Dense(x, W(name + ".weight"), W(name + ".bias"), outputs);
  }

  Matrix<T> Embed(const uint8_t* pixels) {
    const std::vector<double> kernel = W(".embeddings.patch_embedding.weight");
    const std::vector<double> position = W(".embeddings.position_embedding.weight");
    const std::vector<double> cls = W(".embeddings.class_embedding");
    Matrix<T> x(1, std::vector<T>(cls.begin(), cls.end()));
    const int grid = c_.image_size / c_.patch;
    for (int gy = 0; gy < grid; ++gy) {
      for (int gx = 0; gx < grid; ++gx) {
        std::vector<T> row(c_.hidden);
        for (int h = 0; h < c_.hidden; ++h) {
          for (int c = 0; c < 3; ++c) {
            for (int dy = 0; dy < c_.patch; ++dy) {
              for (int dx = 0; dx < c_.patch; ++dx) {
                const int at = ((gy * c_.patch + dy) * c_.image_size + gx * c_.patch + dx) * 3 + c;
                const T value = (T(pixels[at]) / T(255) - T(kMean[c])) / T(kStd[c]);
                row[h] += value * T(kernel[((h * 3 + c) * c_.patch + dy) * c_.patch + dx]);
              }
            }
          }
        }
        x.push_back(row);
      }
    }
    for (size_t t = 0; t < x.size(); ++t) {
      for (int h = 0; h < c_.hidden; ++h) x[t][h] += T(position[t * c_.hidden + h]);
    }
    return x;
  }

  Matrix<T> Attend(const std::string& name, const Matrix<T>& x) {
    const Matrix<T> q = Layer(name + ".q_proj", x, c_.hidden);
    const Matrix<T> k = Layer(name + ".k_proj", x, c_.hidden);
    const Matrix<T> v = Layer(name + ".v_proj", x, c_.hidden);
    const int dim = c_.hidden / c_.heads;
    Matrix<T> out(x.size(), std::vector<T>(c_.hidden));
    for (int head = 0; head < c_.heads; ++head) {
      for (size_t i = 0; i < x.size(); ++i) {
        std::vector<T> p(x.size());
        for (size_t j = 0; j < x.size(); ++j) {
          for (int d = head * dim; d < (head + 1) * dim; ++d) p[j] += q[i][d] * k[j][d];
          p[j] /= std::sqrt(T(dim));
        }
        const T top = *std::max_element(p.begin(), p.end());
        T total = 0;
        for (T& value : p) total += value = std::exp(value - top);
        for (size_t j = 0; j < x.size(); ++j) {
          for (int d = head * dim; d < (head + 1) * dim; ++d) out[i][d] += p[j] / total * v[j][d];
        }
      }
    }
    return Layer(name + ".out_proj", out, c_.hidden);
  }

  const ClipConfig c_;
  MapSource& source_;
};

void AddDense(MapSource& source, const std::string& name, int64_t out, int64_t in, DType weight,
              DType bias) {
  source.Add(name + ".weight", {out, in}, 1.0f / std::sqrt(static_cast<float>(in)), weight);
  source.Add(name + ".bias", {out}, 0.3f, bias);
}

MapSource RandomTower(const ClipConfig& c, DType weight, DType bias) {
  MapSource source(17);
  const std::string p = kPrefix;
  source.Add(p + ".embeddings.class_embedding", {c.hidden}, 1.0f, bias);
  source.Add(p + ".embeddings.patch_embedding.weight", {c.hidden, 3, c.patch, c.patch}, 0.15f,
             weight);
  source.Add(p + ".embeddings.position_embedding.weight", {c.tokens(), c.hidden}, 0.5f, weight);
  const auto norm = [&](const std::string& name) {
    source.Add(name + ".weight", {c.hidden}, 0.3f, bias, 1.0f);
    source.Add(name + ".bias", {c.hidden}, 0.3f, bias);
  };
  norm(p + ".pre_layrnorm");
  for (int layer = 0; layer < c.layers; ++layer) {
    const std::string l = absl::StrCat(p, ".encoder.layers.", layer);
    norm(l + ".layer_norm1");
    norm(l + ".layer_norm2");
    for (const char* name :
         {".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj", ".self_attn.out_proj"}) {
      AddDense(source, l + name, c.hidden, c.hidden, weight, bias);
    }
    AddDense(source, l + ".mlp.fc1", c.intermediate, c.hidden, weight, bias);
    AddDense(source, l + ".mlp.fc2", c.hidden, c.intermediate, weight, bias);
  }
  return source;
}

template <class T>
std::vector<double> Flat(const Matrix<T>& m) {
  std::vector<double> flat;
  for (const std::vector<T>& row : m) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

double MaxDifference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// The tolerance comes from running the plain loops on exactly these inputs in both precisions,
// which measures the cost of float32 arithmetic. Another order of summation may cost a few times
// that.
constexpr double kOrderFactor = 8.0;

Buffer ToDevice(Ops& ops, const void* data, int64_t bytes) {
  Buffer buffer = ops.Allocate(bytes);
  ops.CopyToDevice(buffer.get(), data, bytes);
  return buffer;
}

std::vector<double> FromDevice(Ops& ops, const Buffer& buffer, int64_t count) {
  std::vector<float> values(count);
  ops.CopyToHost(values.data(), buffer.get(), count * 4);
  return {values.begin(), values.end()};
}

std::vector<double> RunTower(ClipTower& tower, Ops& ops, const ClipConfig& c, const uint8_t* pixels,
                             int64_t images) {
  const Buffer in = ToDevice(ops, pixels, images * c.image_size * c.image_size * 3);
  const int64_t count = images * c.features() * c.hidden;
  const Buffer out = ops.Allocate(count * 4);
  tower.Forward(in.get(), images, kMean, kStd, reinterpret_cast<float*>(out.get()));
  return FromDevice(ops, out, count);
}

std::vector<uint8_t> RandomPixels(size_t count) {
  std::mt19937 random(5);
  std::vector<uint8_t> pixels(count);
  for (uint8_t& p : pixels) p = static_cast<uint8_t>(random());
  return pixels;
}

ClipConfig SmallConfig() {
  ClipConfig c;
  c.hidden = 24;
  c.intermediate = 40;
  c.layers = 4;
  c.heads = 3;
  c.image_size = 20;
  c.patch = 5;
  return c;
}

class VisionModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto made = MakeBackend(GetParam(), BackendOptions{});
    ASSERT_TRUE(made.ok()) << made.status();
    ops_ = *std::move(made);
  }
  std::unique_ptr<Ops> ops_;
};

TEST_P(VisionModelTest, TowerEqualsPlainLoops) {
  struct Case {
    int feature_layer;
    bool drop_class_token;
    Activation activation;
    DType weight, bias;
  };
  const Case cases[] = {
      {-2, true, Activation::kQuickGelu, DType::kF32, DType::kF32},
      {-1, true, Activation::kQuickGelu, DType::kF32, DType::kF32},
      {-2, false, Activation::kQuickGelu, DType::kBF16, DType::kBF16},
      {-1, false, Activation::kGelu, DType::kF16, DType::kF16},
      {-3, true, Activation::kQuickGelu, DType::kBF16, DType::kF32},
      {1, true, Activation::kQuickGelu, DType::kF32, DType::kF32},
      {0, false, Activation::kQuickGelu, DType::kF32, DType::kF32},
  };
  constexpr int64_t kImages = 3;
  for (const Case& test : cases) {
    ClipConfig c = SmallConfig();
    c.feature_layer = test.feature_layer;
    c.drop_class_token = test.drop_class_token;
    c.activation = test.activation;
    MapSource source = RandomTower(c, test.weight, test.bias);
    auto tower = ClipTower::Load(c, source, *ops_, kPrefix);
    ASSERT_TRUE(tower.ok()) << tower.status();

    const size_t image_bytes = size_t{3} * c.image_size * c.image_size;
    const std::vector<uint8_t> pixels = RandomPixels(kImages * image_bytes);
    const std::vector<double> got = RunTower(**tower, *ops_, c, pixels.data(), kImages);
    const size_t image_floats = static_cast<size_t>(c.features()) * c.hidden;
    ASSERT_EQ(got.size(), kImages * image_floats);
    for (int64_t i = 0; i < kImages; ++i) {
      const uint8_t* image = &pixels[i * image_bytes];
      const auto exact = Flat(PlainTower<double>(c, source).Features(image));
      const auto single = Flat(PlainTower<float>(c, source).Features(image));
      const std::vector<double> mine(got.begin() + i * image_floats,
                                     got.begin() + (i + 1) * image_floats);
      const double tolerance = kOrderFactor * MaxDifference(single, exact);
      EXPECT_LT(tolerance, 1e-3);  // outputs are of order 1, so the comparison is sharp
      EXPECT_LE(MaxDifference(mine, exact), tolerance)
          << "layer " << c.feature_layer << " image " << i;
    }
  }
}

TEST_P(VisionModelTest, TowerDoesNotDependOnTheBatch) {
  const ClipConfig c = SmallConfig();
  MapSource source = RandomTower(c, DType::kBF16, DType::kBF16);
  auto tower = ClipTower::Load(c, source, *ops_, kPrefix);
  ASSERT_TRUE(tower.ok());
  const size_t bytes = size_t{3} * c.image_size * c.image_size;
  const std::vector<uint8_t> pixels = RandomPixels(5 * bytes);
  const size_t floats = static_cast<size_t>(c.features()) * c.hidden;

  const std::vector<double> first = RunTower(**tower, *ops_, c, pixels.data(), 1);
  const std::vector<double> all = RunTower(**tower, *ops_, c, pixels.data(), 5);        // grows
  const std::vector<double> last = RunTower(**tower, *ops_, c, &pixels[4 * bytes], 1);  // stays
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  EXPECT_TRUE(std::equal(last.begin(), last.end(), all.begin() + 4 * floats));
}

TEST_P(VisionModelTest, TowerNamesWhatIsMissing) {
  const ClipConfig c = SmallConfig();
  const std::string name = std::string(kPrefix) + ".encoder.layers.1.self_attn.v_proj.bias";
  MapSource source = RandomTower(c, DType::kF32, DType::kF32);
  source.Remove(name);
  const auto missing = ClipTower::Load(c, source, *ops_, kPrefix);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find(name), absl::string_view::npos);
  source.Add(name, {c.hidden + 1}, 1.0f, DType::kF32);
  EXPECT_EQ(ClipTower::Load(c, source, *ops_, kPrefix).status().code(),
            absl::StatusCode::kInvalidArgument);

  // The layers after the feature layer are not needed.
  MapSource cut = RandomTower(c, DType::kF32, DType::kF32);
  cut.Remove(std::string(kPrefix) + ".encoder.layers.3.mlp.fc1.weight");
  EXPECT_TRUE(ClipTower::Load(c, cut, *ops_, kPrefix).ok());
}

TEST_P(VisionModelTest, ProjectorEqualsPlainLoops) {
  constexpr int64_t kVision = 24, kText = 36, kRows = 7;
  const std::string p = "multi_modal_projector";
  for (bool biased : {true, false}) {
    MapSource source(23);
    AddDense(source, p + ".linear_1", kText, kVision, DType::kBF16, DType::kBF16);
    AddDense(source, p + ".linear_2", kText, kText, DType::kBF16, DType::kF32);
    if (!biased) {
      source.Remove(p + ".linear_1.bias");
      source.Remove(p + ".linear_2.bias");
    }
    source.Add("x", {kRows, kVision}, 1.0f, DType::kF32);
    auto projector = Projector::Load(kVision, kText, Activation::kGelu, source, *ops_, p);
    ASSERT_TRUE(projector.ok()) << projector.status();

    const auto plain = [&](auto zero) {
      using T = decltype(zero);
      const auto bias = [&](const std::string& name) {
        return biased ? source.Values(name) : std::vector<double>();
      };
      const std::vector<double> values = source.Values("x");
      Matrix<T> x;
      for (int64_t r = 0; r < kRows; ++r) {
        x.emplace_back(values.begin() + r * kVision, values.begin() + (r + 1) * kVision);
      }
      Matrix<T> h =
          Dense(x, source.Values(p + ".linear_1.weight"), bias(p + ".linear_1.bias"), kText);
      for (std::vector<T>& row : h) {
        for (T& v : row) v = Activate(v, Activation::kGelu);
      }
      return Flat(
          Dense(h, source.Values(p + ".linear_2.weight"), bias(p + ".linear_2.bias"), kText));
    };
    const std::vector<double> exact = plain(0.0), single = plain(0.0f);

    const std::vector<double> values = source.Values("x");
    const std::vector<float> floats(values.begin(), values.end());
    const Buffer in = ToDevice(*ops_, floats.data(), kRows * kVision * 4);
    const Buffer out = ops_->Allocate(kRows * kText * 4);
    for (int64_t rows : {int64_t{2}, kRows}) {
      projector->Forward(reinterpret_cast<const float*>(in.get()), rows,
                         reinterpret_cast<float*>(out.get()));
      const std::vector<double> head(exact.begin(), exact.begin() + rows * kText);
      EXPECT_LE(MaxDifference(FromDevice(*ops_, out, rows * kText), head),
                kOrderFactor * MaxDifference(single, exact));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CpuBackends, VisionModelTest, ::testing::Values("reference", "cpu"));

}  // namespace
}  // namespace tessera
