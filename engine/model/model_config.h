// Reads the JSON files of a llava-hf checkpoint into one checked struct.
//
// A key that is absent takes transformers' default (LlamaConfig, CLIPVisionConfig): llava-1.5-7b-hf
// omits the text model's hidden size, layers and heads. Text models: llama (Vicuna too), mistral
// without a sliding window, and qwen2 with its QKV biases. image_seq_length is not read: it follows
// from the vision tower.
// Threads: safe; plain values.
// Errors: INVALID_ARGUMENT names file and key. UNIMPLEMENTED: what this engine does not compute
// (RoPE scaling, other activations, other vision towers), so that nothing is silently wrong.
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

struct LlamaConfig {             // defaults are transformers'
  std::string family = "llama";  // model_type: llama, mistral or qwen2
  int vocab = 32000;
  int hidden = 4096;
  int intermediate = 11008;
  int layers = 32;
  int heads = 32;
  int kv_heads = 32;   // if absent: heads
  int head_dim = 128;  // if absent: hidden / heads
  int max_positions = 2048;
  float rms_eps = 1e-6f;
  float rope_theta = 10000.0f;
  bool qkv_bias = false;  // attention_bias, or model_type qwen2
  bool o_bias = false;    // attention_bias
  bool tied_embeddings = false;

  KvGeometry kv_geometry() const { return {layers, kv_heads, head_dim}; }
};

struct GenerationDefaults {  // from generation_config.json, if it exists
  float temperature = 0.0f;  // 0 (greedy) unless do_sample is true
  int top_k = 0;
  float top_p = 1.0f;
  float repetition_penalty = 1.0f;
};

struct ModelConfig {
  std::string name;          // the directory's name, or --model_name
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
  // A name of the table in chat_template.h, recognized from the checkpoint's Jinja text. "vicuna"
  // if the checkpoint has no template. "" if its template is unknown: then only raw prompts work.
  std::string chat_template;

  int tokens_per_image() const { return vision.features(); }
};

// Reads config.json, preprocessor_config.json, generation_config.json, tokenizer_config.json,
// chat_template.jinja and chat_template.json of `dir`. Only config.json is required; without the
// others the model family's defaults apply.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir);
// Does the same with the files' contents, for tests and fuzzing. "" is an absent file.
struct ModelConfigTexts {
  std::string config, preprocessor, generation, tokenizer;
  std::string chat_template_jinja, chat_template_json;
};
absl::StatusOr<ModelConfig> ParseModelConfig(const ModelConfigTexts& texts);

}  // namespace tessera
