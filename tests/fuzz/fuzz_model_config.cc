// Fuzzes the parser of a checkpoint's JSON files, which NUL bytes separate. Any bytes give a
// configuration that keeps every limit and divisibility rule, or INVALID_ARGUMENT or UNIMPLEMENTED.
#include "absl/strings/str_split.h"
#include "base/base.h"
#include "engine/model/model_config.h"
#include "engine/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> parts = absl::StrSplit(bytes, absl::MaxSplits('\0', 5));
  ModelConfigTexts texts;
  std::string* const fields[] = {
      &texts.config,       &texts.generation,         &texts.tokenizer,
      &texts.preprocessor, &texts.chat_template_json, &texts.chat_template_jinja};
  for (size_t i = 0; i < parts.size(); ++i) *fields[i] = parts[i];
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(texts);
  if (!config.ok()) {
    TESSERA_CHECK(config.status().code() == absl::StatusCode::kInvalidArgument ||
                  config.status().code() == absl::StatusCode::kUnimplemented);
    return 0;
  }
  const LlamaConfig& text = config->text;
  TESSERA_CHECK(text.vocab > 0 && text.hidden > 0 && text.layers > 0 && text.max_positions > 0);
  TESSERA_CHECK(text.heads > 0 && text.kv_heads > 0 && text.heads % text.kv_heads == 0);
  TESSERA_CHECK(text.head_dim >= 8 && text.head_dim <= 256 && text.head_dim % 8 == 0);
  const ClipConfig& vision = config->vision;
  TESSERA_CHECK(vision.hidden % vision.heads == 0 && vision.image_size % vision.patch == 0);
  TESSERA_CHECK(vision.blocks() >= 0 && vision.blocks() <= vision.layers);
  TESSERA_CHECK(config->tokens_per_image() > 0);
  TESSERA_CHECK(config->processor.crop == vision.image_size);
  TESSERA_CHECK(config->image_token >= 0 && config->image_token < text.vocab);
  TESSERA_CHECK(config->pad_token < text.vocab && config->bos_token < text.vocab);
  TESSERA_CHECK(!config->eos_tokens.empty());
  for (int eos : config->eos_tokens) TESSERA_CHECK(eos >= 0 && eos < text.vocab);
  TESSERA_CHECK(config->chat_template.empty() || HasChatTemplate(config->chat_template));
  return 0;
}
