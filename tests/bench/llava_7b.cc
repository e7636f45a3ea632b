#include "tests/bench/llava_7b.h"

namespace tessera::bench {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["LlavaForConditionalGeneration"], "image_token_index": 32000,
  "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
  "text_config": {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
    "torch_dtype": "float16", "vocab_size": 32064},
  "torch_dtype": "float16",
  "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
    "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
    "patch_size": 14, "projection_dim": 768},
  "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064})";

class WordTokenizer final : public Tokenizer {
 public:
  explicit WordTokenizer(int vocab) : vocab_(vocab) {}
  std::vector<int32_t> Encode(absl::string_view, bool) const override { return {}; }
  std::string TokenBytes(int32_t) const override { return " word"; }
  std::string Piece(int32_t) const override { return "\u2581word"; }
  int vocab_size() const override { return vocab_; }
  bool IsControl(int32_t) const override { return false; }
  int32_t bos() const override { return 1; }
  bool add_bos() const override { return true; }
  int32_t IdOf(absl::string_view) const override { return -1; }

 private:
  int vocab_;
};

}  // namespace

ModelConfig Llava7b() {
  absl::StatusOr<ModelConfig> config = ParseModelConfig({.config = kConfig});
  if (!config.ok()) CheckFailed(__FILE__, __LINE__, config.status().ToString().c_str());
  config->name = "llava-1.5-7b";
  return *std::move(config);
}

std::shared_ptr<const Tokenizer> MakeWordTokenizer(int vocab) {
  return std::make_shared<WordTokenizer>(vocab);
}

}  // namespace tessera::bench
