// A llava-hf checkpoint's JSON files as one checked struct.
//
// Keys that a published config.json leaves out take transformers' defaults (LlamaConfig,
// CLIPVisionConfig): llava-1.5-7b-hf omits the text model's hidden size, layers and heads.
// Text models: llama, vicuna's llama, mistral (no sliding window) and qwen2 (QKV biases).
// Derived values are not read back: image_seq_length follows from the vision tower.
// Errors: INVALID_ARGUMENT naming file and key, UNIMPLEMENTED for what this engine does not compute
// (rope scaling, other activations, other vision towers), so that nothing is silently wrong.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/base.h"
#include "kernels/layout/page_layout.h"
#include "kernels/ops.h"
#include "vision/processor/processor.h"
#include "vision/tower/clip.h"

namespace tessera {

struct LlamaConfig {             // defaults: transformers' LlamaConfig
  std::string family = "llama";  // model_type: llama, mistral or qwen2
  int vocab = 32000;
  int hidden = 4096;
  int intermediate = 11008;
  int layers = 32;
  int heads = 32;
  int kv_heads = 32;   // default: heads
  int head_dim = 128;  // default: hidden / heads
  int max_positions = 2048;
  float rms_eps = 1e-6f;
  float rope_theta = 10000.0f;
  bool qkv_bias = false;  // attention_bias, or model_type qwen2
  bool o_bias = false;    // attention_bias
  bool tied_embeddings = false;

  KvGeometry kv_geometry() const { return {layers, kv_heads, head_dim}; }
};

struct GenerationDefaults {  // generation_config.json, where present
  float temperature = 0.0f;  // do_sample=false (or absent): greedy
  int top_k = 0;
  float top_p = 1.0f;
  float repetition_penalty = 1.0f;
};

struct ModelConfig {
  std::string name;          // directory name, or --model_name
  std::string architecture;  // "llava"
  DType dtype = DType::kBF16;
  LlamaConfig text;
  ClipConfig vision;
  ProcessorConfig processor;
  Activation projector_activation = Activation::kGelu;
  int image_token = 32000;
  int pad_token = -1;
  int bos_token = 1;                  // -1: none
  std::vector<int> eos_tokens = {2};  // generation_config.json, else config.json
  GenerationDefaults generation;
  // Name in the template table: recognised from the checkpoint's jinja text; "vicuna" where the
  // checkpoint has none; "" where it has one that the table does not know (then only raw prompts).
  std::string chat_template;

  int tokens_per_image() const { return vision.features(); }
};

// Reads config.json, preprocessor_config.json, generation_config.json, tokenizer_config.json,
// chat_template.jinja and chat_template.json of `dir`; only config.json is required (others take
// the model family's defaults).
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir);
// The same from text, for tests and fuzzing; empty strings stand for absent files.
struct ModelConfigTexts {
  std::string config, preprocessor, generation, tokenizer;
  std::string chat_template_jinja, chat_template_json;
};
absl::StatusOr<ModelConfig> ParseModelConfig(const ModelConfigTexts& texts);

}  // namespace tessera
