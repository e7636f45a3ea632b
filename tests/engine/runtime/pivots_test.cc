// Planted massive activations: tokens that are given some become pivots, and nothing else does.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "base/base.h"
#include "cache/policies/registry.h"
#include "engine/runtime/engine.h"
#include "engine/weights/weights.h"
#include "kernels/backend/backend.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/wrapped_model.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

constexpr int32_t kMassive = 333;  // the id whose embedding is changed
constexpr int kPrompt = 200;
const std::set<int> kPlanted = {3, 50, 77, 120, 199};  // where it stands; the last in the window

// The checkpoint's weights, but the embedding of kMassive has two channels of 20000.
class PlantedSource final : public TensorSource {
 public:
  explicit PlantedSource(std::unique_ptr<TensorSource> source) : source_(std::move(source)) {}
  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    ASSIGN_OR_RETURN(HostTensor tensor, source_->Find(name, shape));
    if (name != "language_model.embed_tokens.weight") return tensor;
    embedding_ = ToFloats(tensor);
    embedding_[kMassive * shape[1] + 7] = 20000;
    embedding_[kMassive * shape[1] + 100] = -20000;
    tensor.dtype = DType::kF32;
    tensor.data = embedding_.data();
    return tensor;
  }
  bool Has(absl::string_view name) const override { return source_->Has(name); }

 private:
  std::unique_ptr<TensorSource> source_;
  std::vector<float> embedding_;
};

// Follows one sequence's tokens through the pages: counts moves from 16 to 16 bit.
class Follower final : public testing::WrappedModel {
 public:
  using WrappedModel::WrappedModel;
  void Forward(const Batch& batch, uint8_t* arena) override {
    Batch::Layer arrays;
    for (int layer = 0; layer < config().text.layers; ++layer) {
      batch.build_layer(layer, &arrays);
      for (int row = 0; row < batch.rows(); ++row) {
        const KvSlot& slot = arrays.slots[row];
        where_[{slot.page, slot.slot}] = {layer, batch.positions[row]};
      }
    }
    WrappedModel::Forward(batch, arena);
  }
  void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) override {
    for (const MoveBatch& batch : batches) {
      for (const TokenMove& move : batch.moves) {
        const auto token = where_.at({move.from.page, move.from.slot});
        where_[{move.to.page, move.to.slot}] = token;
        if (batch.to == Format::kRaw16) ++moves[token.first][token.second];
      }
    }
    WrappedModel::MoveTokens(arena, batches);
  }

  std::map<int, std::map<int, int>> moves;  // [layer][position]

 private:
  std::map<std::pair<PageId, uint32_t>, std::pair<int, int>> where_;
};

TEST(PivotsTest, PlantedMassiveActivationsAreThePivots) {
  constexpr int kWindow = 32;
  const std::string dir = testing::SourcePath("models/demo");
  for (const char* text : {"akvq(window=32, pivots=5)", "akvq(window=32, pivots=5, tsa=1)",
                           "akvq(window=32, pivots=10, pivot_rule=topk_entries)",
                           "akvq(window=32, pivot_rule=threshold)"}) {
    SCOPED_TRACE(text);
    auto weights = OpenSafetensors(dir);
    ASSERT_TRUE(weights.ok()) << weights.status();
    PlantedSource planted(*std::move(weights));
    auto config = LoadModelConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    auto tokenizer = Tokenizer::Load(dir);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    auto backend = MakeBackend("cpu", {});
    ASSERT_TRUE(backend.ok()) << backend.status();
    auto model = LlavaModel::Load(*config, planted, *std::move(backend), 48);
    ASSERT_TRUE(model.ok()) << model.status();
    auto follower = std::make_unique<Follower>(*std::move(model));
    Follower& followed = *follower;

    Request request;
    request.id = "planted";
    std::mt19937 rng(1);
    request.prompt.ids = {1};
    while (request.prompt.ids.size() < kPrompt) {
      const bool massive = kPlanted.contains(static_cast<int>(request.prompt.ids.size()));
      request.prompt.ids.push_back(massive ? kMassive : 340 + static_cast<int32_t>(rng() % 100));
    }
    request.stop.max_tokens = 70;  // until the last planted token has left the window
    request.stop.ignore_eos = true;
    request.policy = *ParsePolicy(text);
    const std::shared_ptr<const Policy> policy = request.policy;
    EngineOptions options;
    options.kv_cache_bytes = 64 << 20;
    options.max_batch_tokens = 48;  // several chunks
    options.max_sequences = 4;
    options.check_integrity = true;
    Engine engine(std::move(follower), *std::move(tokenizer), options, nullptr);
    ASSERT_TRUE(testing::Ask(engine, std::move(request)).last.status.ok());
    engine.Stop();  // the follower is the engine thread's until then

    const int layers = config->text.layers;
    ASSERT_EQ(followed.moves.size(), static_cast<size_t>(layers));
    for (int layer = 0; layer < layers; ++layer) {
      const std::set<int> expected = policy->MaxPivots(layer) > 0 ? kPlanted : std::set<int>();
      for (int position = 0; position < kPrompt; ++position) {
        // Into the window's new pages at the commit, and into the pivots' run.
        const int count = (position >= kPrompt - kWindow) + expected.contains(position);
        EXPECT_EQ(followed.moves[layer][position], count) << "layer " << layer << " " << position;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
