#include "vision/tower/clip.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "kernels/graph_parts.h"
#include "kernels/load_weights.h"

namespace tessera {
namespace {

float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }
const int32_t* Ints(const Buffer& b) { return reinterpret_cast<const int32_t*>(b.get()); }

struct Norm {
  Buffer weight, bias;  // float32 [hidden]
};

struct Block {
  Norm norm_1, norm_2;
  Linear qkv, out, up, down;
};

absl::StatusOr<Norm> LoadNorm(TensorSource& source, Ops& ops, const std::string& prefix,
                              int64_t hidden) {
  Norm norm;
  ASSIGN_OR_RETURN(norm.weight, LoadFloats(source, ops, prefix + ".weight", {hidden}));
  ASSIGN_OR_RETURN(norm.bias, LoadFloats(source, ops, prefix + ".bias", {hidden}));
  return norm;
}

absl::StatusOr<Block> LoadBlock(TensorSource& source, Ops& ops, const std::string& prefix,
                                int64_t hidden, int64_t intermediate) {
  Block block;
  const std::string attn = prefix + ".self_attn", mlp = prefix + ".mlp";
  ASSIGN_OR_RETURN(block.norm_1, LoadNorm(source, ops, prefix + ".layer_norm1", hidden));
  ASSIGN_OR_RETURN(block.qkv, LoadLinear(source, ops,
                                         {{attn + ".q_proj", hidden},
                                          {attn + ".k_proj", hidden},
                                          {attn + ".v_proj", hidden}},
                                         {hidden}, BiasRule::kRequired));
  ASSIGN_OR_RETURN(block.out, LoadLinear(source, ops, {{attn + ".out_proj", hidden}}, {hidden},
                                         BiasRule::kRequired));
  ASSIGN_OR_RETURN(block.norm_2, LoadNorm(source, ops, prefix + ".layer_norm2", hidden));
  ASSIGN_OR_RETURN(block.up, LoadLinear(source, ops, {{mlp + ".fc1", intermediate}}, {hidden},
                                        BiasRule::kRequired));
  ASSIGN_OR_RETURN(block.down, LoadLinear(source, ops, {{mlp + ".fc2", hidden}}, {intermediate},
                                          BiasRule::kRequired));
  return block;
}

class ClipTowerImpl : public ClipTower {
 public:
  ClipTowerImpl(const ClipConfig& config, Ops& ops) : c_(config), ops_(ops) {}

  absl::Status Load(TensorSource& source, const std::string& prefix);
  void Forward(const uint8_t* pixels, int64_t images, const float mean[3], const float std[3],
               float* out) override;

 private:
  // Allocates activations and row indices for `images` images.
  void Reserve(int64_t images);
  // Computes x_: the embeddings of patches and class tokens, plus their position embeddings.
  void Embed(const uint8_t* pixels, int64_t images, const float mean[3], const float std[3]);
  // Runs one block: x_ += attention(norm(x_)); x_ += mlp(norm(x_)).
  void Run(const Block& block, int64_t images);

  const ClipConfig c_;
  Ops& ops_;
  Linear patch_;
  Buffer class_row_;      // [1, hidden]: class embedding + position 0
  Buffer position_rows_;  // [patches, hidden]
  Norm pre_norm_;
  std::vector<Block> blocks_;

  int64_t capacity_ = 0;  // images
  Buffer patches_;        // [images * patches, 3 * patch * patch]
  Buffer embedded_;       // [images * patches, hidden]
  Buffer x_, attended_;   // [images * tokens, hidden]
  Buffer qkv_;            // [images * tokens, 3 * hidden]
  Buffer up_;             // [images * tokens, intermediate]
  // int32 rows. Patch i of any image: its position, and its row in x_.
  Buffer patch_position_, patch_row_;   // [images * patches]
  Buffer class_source_, class_target_;  // [images]: zeros, and the class tokens' rows in x_
  Buffer feature_row_;                  // [images * features]: the rows of x_ that leave
  Buffer class_rows_;                   // [images, hidden]
};

absl::Status ClipTowerImpl::Load(TensorSource& source, const std::string& prefix) {
  const int64_t hidden = c_.hidden, patches = c_.patches();
  const std::string embeddings = prefix + ".embeddings";
  ASSIGN_OR_RETURN(patch_, LoadLinear(source, ops_, {{embeddings + ".patch_embedding", hidden}},
                                      {3, c_.patch, c_.patch}, BiasRule::kNone));
  ASSIGN_OR_RETURN(const HostTensor class_token,
                   source.Find(embeddings + ".class_embedding", {hidden}));
  ASSIGN_OR_RETURN(const HostTensor positions,
                   source.Find(embeddings + ".position_embedding.weight", {c_.tokens(), hidden}));
  std::vector<float> position = ToFloats(positions), class_row = ToFloats(class_token);
  for (int64_t i = 0; i < hidden; ++i) class_row[i] += position[i];
  class_row_ = ops_.Allocate(hidden * 4);
  ops_.CopyToDevice(class_row_.get(), class_row.data(), hidden * 4);
  position_rows_ = ops_.Allocate(patches * hidden * 4);
  ops_.CopyToDevice(position_rows_.get(), &position[hidden], patches * hidden * 4);

  ASSIGN_OR_RETURN(pre_norm_, LoadNorm(source, ops_, prefix + ".pre_layrnorm", hidden));
  for (int i = 0; i < c_.blocks(); ++i) {
    ASSIGN_OR_RETURN(blocks_.emplace_back(),
                     LoadBlock(source, ops_, absl::StrCat(prefix, ".encoder.layers.", i), hidden,
                               c_.intermediate));
  }
  return absl::OkStatus();
}

void ClipTowerImpl::Reserve(int64_t images) {
  if (images <= capacity_) return;
  capacity_ = images;
  const int64_t patches = c_.patches(), tokens = c_.tokens(), hidden = c_.hidden;
  const auto floats = [this](int64_t rows, int64_t cols) { return ops_.Allocate(rows * cols * 4); };
  patches_ = floats(images * patches, patch_.in);
  embedded_ = floats(images * patches, hidden);
  x_ = floats(images * tokens, hidden);
  attended_ = floats(images * tokens, hidden);
  qkv_ = floats(images * tokens, 3 * hidden);
  up_ = floats(images * tokens, c_.intermediate);
  class_rows_ = floats(images, hidden);

  std::vector<int32_t> patch_position, patch_row, class_target, feature_row;
  for (int64_t i = 0; i < images; ++i) {
    class_target.push_back(static_cast<int32_t>(i * tokens));
    for (int64_t t = tokens - c_.features(); t < tokens; ++t) {
      feature_row.push_back(static_cast<int32_t>(i * tokens + t));
    }
    for (int64_t p = 0; p < patches; ++p) {
      patch_position.push_back(static_cast<int32_t>(p));
      patch_row.push_back(static_cast<int32_t>(i * tokens + 1 + p));
    }
  }
  const auto ints = [this](const std::vector<int32_t>& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
    Buffer buffer = ops_.Allocate(bytes);
    ops_.CopyToDevice(buffer.get(), values.data(), bytes);
    return buffer;
  };
  patch_position_ = ints(patch_position);
  patch_row_ = ints(patch_row);
  class_source_ = ints(std::vector<int32_t>(images, 0));
  class_target_ = ints(class_target);
  feature_row_ = ints(feature_row);
}

void ClipTowerImpl::Embed(const uint8_t* pixels, int64_t images, const float mean[3],
                          const float std[3]) {
  const int64_t rows = images * c_.patches(), hidden = c_.hidden;
  ops_.Patchify(pixels, images, c_.image_size, c_.patch, mean, std, Floats(patches_));
  ops_.GatherRows(Floats(position_rows_), Ints(patch_position_), rows, hidden, Floats(embedded_));
  ops_.MatMul(patch_, Floats(patches_), rows, Floats(embedded_), Activation::kNone,
              Floats(embedded_));
  ops_.ScatterRows(Floats(embedded_), Ints(patch_row_), rows, hidden, Floats(x_));
  ops_.GatherRows(Floats(class_row_), Ints(class_source_), images, hidden, Floats(class_rows_));
  ops_.ScatterRows(Floats(class_rows_), Ints(class_target_), images, hidden, Floats(x_));
}

void ClipTowerImpl::Run(const Block& block, int64_t images) {
  const int64_t rows = images * c_.tokens(), hidden = c_.hidden;
  float* x = Floats(x_);
  const auto normed = [this](const Norm& norm) {
    return Prologue{Prologue::kLayerNorm, Floats(norm.weight), Floats(norm.bias), c_.eps};
  };
  ops_.MatMul(block.qkv, x, rows, Floats(qkv_), Activation::kNone, nullptr, normed(block.norm_1));
  ops_.VitAttention(Floats(qkv_), images, c_.tokens(), c_.heads, hidden / c_.heads,
                    Floats(attended_));
  ops_.MatMul(block.out, Floats(attended_), rows, x, Activation::kNone, x);
  ops_.MatMul(block.up, x, rows, Floats(up_), Activation::kNone, nullptr, normed(block.norm_2));
  ops_.MatMul(block.down, Floats(up_), rows, x, Activation::kNone, x,
              {Prologue::kActivation, nullptr, nullptr, 0, c_.activation});
}

void ClipTowerImpl::Forward(const uint8_t* pixels, int64_t images, const float mean[3],
                            const float std[3], float* out) {
  if (images == 0) return;
  Reserve(images);
  Embed(pixels, images, mean, std);
  float* x = Floats(x_);
  ops_.LayerNorm(x, Floats(pre_norm_.weight), Floats(pre_norm_.bias), images * c_.tokens(),
                 c_.hidden, c_.eps, x);
  RunInGraphs(
      ops_, std::ssize(blocks_), [](int64_t) {}, [&](int64_t i) { Run(blocks_[i], images); });
  ops_.GatherRows(x, Ints(feature_row_), images * c_.features(), c_.hidden, out);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClipTower>> ClipTower::Load(const ClipConfig& config,
                                                           TensorSource& source, Ops& ops,
                                                           const std::string& prefix) {
  TESSERA_CHECK(config.heads > 0 && config.hidden > 0 && config.hidden % config.heads == 0);
  TESSERA_CHECK(config.patch > 0 && config.image_size >= config.patch);
  TESSERA_CHECK(config.blocks() >= 0 && config.blocks() <= config.layers);
  auto tower = std::make_unique<ClipTowerImpl>(config, ops);
  RETURN_IF_ERROR(tower->Load(source, prefix));
  return std::unique_ptr<ClipTower>(std::move(tower));
}

}  // namespace tessera
