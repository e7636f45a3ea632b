// Checks that Ops::BeginGraph and EndGraph give the same values as no graph, for any order of
// recordings.
#include "kernels/backend/backend.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class GraphTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto ops = MakeBackend(GetParam(), {});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
    ops_ = *std::move(ops);
    // float32, so that a product needs a workspace for padded rows: `in` is not a multiple of 4.
    uint64_t seed = 10;
    for (Linear* w : {&first_, &second_}) {
      const std::vector<float> weight = Random(++seed).Normals(kOut * kIn);
      *w = ops_->MakeLinear({{weight.data(), nullptr, kOut}}, kIn, DType::kF32);
    }
    x_ = Upload(Random(2).Normals(kMostRows * kIn));
    norm_ = Upload(Random(3).Normals(kIn));
  }
  Buffer Upload(const std::vector<float>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * 4);
    Buffer buffer = ops_->Allocate(bytes);
    ops_->CopyToDevice(buffer.get(), values.data(), bytes);
    return buffer;
  }
  static float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

  // Runs `products` products of `rows` rows; some have a norm before them.
  std::vector<float> Run(int64_t rows, int products, bool graph) {
    const int64_t floats = rows * kOut;
    const Buffer y = ops_->Allocate(products * floats * 4);
    if (graph) ops_->BeginGraph();
    for (int i = 0; i < products; ++i) {
      const Prologue norm{Prologue::kRmsNorm, Floats(norm_), nullptr, 1e-5f};
      ops_->MatMul(i % 2 == 0 ? first_ : second_, Floats(x_), rows, Floats(y) + i * floats,
                   Activation::kSilu, nullptr, i % 3 == 0 ? norm : Prologue{});
    }
    if (graph) ops_->EndGraph();
    std::vector<float> out(products * floats);
    ops_->CopyToHost(out.data(), y.get(), products * floats * 4);
    return out;
  }
  void ExpectSame(int64_t rows, int products) {
    const std::vector<float> graph = Run(rows, products, true);
    ExpectSameBits(graph, Run(rows, products, false),
                   std::to_string(products) + " of " + std::to_string(rows) + " rows");
  }

  static constexpr int64_t kIn = 70, kOut = 33, kMostRows = 500;
  std::unique_ptr<Ops> ops_;
  Linear first_, second_;
  Buffer x_, norm_;
};
INSTANTIATE_TEST_SUITE_P(Cpu, GraphTest, ::testing::Values("cpu"));
INSTANTIATE_TEST_SUITE_P(Cuda, GraphTest, ::testing::Values("cuda"));

TEST_P(GraphTest, ParametersAndShapesChangeFromOneToTheNext) {
  for (const int64_t rows : {3, 4, 3, 40, 200, 5}) {
    for (const int products : {2, 7, 2}) ExpectSame(rows, products);
  }
}

TEST_P(GraphTest, NothingRecordedIsNothingDone) {
  ops_->BeginGraph();
  ops_->EndGraph();
  ExpectSame(3, 1);
}

// The workspace of a graph's earlier products must stay until the graph has run.
TEST_P(GraphTest, WorkspacesGrowWhileRecording) {
  const std::vector<int64_t> rows = {3, 10, 60, 200, 500};
  std::vector<Buffer> y;
  for (const int64_t r : rows) y.push_back(ops_->Allocate(r * kOut * 4));
  ops_->BeginGraph();
  for (size_t i = 0; i < rows.size(); ++i) {
    ops_->MatMul(first_, Floats(x_), rows[i], Floats(y[i]), Activation::kSilu);
  }
  ops_->EndGraph();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<float> graph(rows[i] * kOut), alone(graph.size());
    ops_->CopyToHost(graph.data(), y[i].get(), rows[i] * kOut * 4);
    ops_->MatMul(first_, Floats(x_), rows[i], Floats(y[i]), Activation::kSilu);
    ops_->CopyToHost(alone.data(), y[i].get(), rows[i] * kOut * 4);
    ExpectSameBits(graph, alone, std::to_string(rows[i]) + " rows");
  }
}

// Runs more shapes than there are cached executable graphs, then the first again.
TEST_P(GraphTest, ManyShapes) {
  for (int products = 1; products <= 70; ++products) ExpectSame(3, products);
  ExpectSame(3, 1);
}

}  // namespace
}  // namespace tessera::testing
