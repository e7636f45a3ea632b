#include "engine/model/model_config.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/read_file.h"
#include "engine/model/model_config_parts.h"
#include "engine/text/chat_template.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr char kConfig[] = "config.json";
constexpr char kTextConfig[] = "config.json: text_config";
constexpr char kGeneration[] = "generation_config.json";
constexpr int kMaxEosTokens = 64;

absl::Status Invalid(absl::string_view where, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", why));
}

absl::Status Unsupported(absl::string_view where, const std::string& why) {
  return absl::UnimplementedError(absl::StrCat(where, ": ", why));
}

// Reads the dtype from `torch_dtype` (older files) or `dtype`. Returns false if both are absent.
absl::StatusOr<bool> ReadDType(const Json& object, absl::string_view where, DType* out) {
  std::string name;
  RETURN_IF_ERROR(GetString(object, where, "torch_dtype", &name));
  RETURN_IF_ERROR(GetString(object, where, "dtype", &name));
  if (name.empty()) return false;
  if (name == "bfloat16") {
    *out = DType::kBF16;
  } else if (name == "float16") {
    *out = DType::kF16;
  } else if (name == "float32") {
    *out = DType::kF32;
  } else {
    return Unsupported(where, absl::StrCat("dtype \"", name, "\""));
  }
  return true;
}

// Reads the dtype and the text model. `json` is the whole file; its values apply where text_config
// has none.
absl::Status ReadText(const Json& json, const Json& text_json, ModelConfig* config) {
  ASSIGN_OR_RETURN(bool has_dtype, ReadDType(json, kConfig, &config->dtype));
  if (!has_dtype) {
    ASSIGN_OR_RETURN(has_dtype, ReadDType(text_json, kTextConfig, &config->dtype));
  }
  bool tied = config->text.tied_embeddings;
  RETURN_IF_ERROR(GetBool(json, kConfig, "tie_word_embeddings", &tied));
  RETURN_IF_ERROR(ReadTextConfig(text_json, kTextConfig, &config->text));
  if (FindMember(text_json, "tie_word_embeddings") == nullptr) config->text.tied_embeddings = tied;
  return absl::OkStatus();
}

// Reads which hidden state of the vision tower becomes the image's features.
absl::Status ReadVisionFeature(const Json& json, ClipConfig* vision) {
  if (const Json* layer = FindMember(json, "vision_feature_layer"); layer && layer->is_array()) {
    return Unsupported(kConfig, "vision_feature_layer is a list; only one layer is supported");
  }
  // Hidden states count from 0 (the embeddings) to `layers`; negative numbers count from the end.
  RETURN_IF_ERROR(GetInt(json, kConfig, "vision_feature_layer", -(vision->layers + 1),
                         vision->layers, &vision->feature_layer));
  std::string strategy = "default";
  RETURN_IF_ERROR(GetString(json, kConfig, "vision_feature_select_strategy", &strategy));
  if (strategy != "default" && strategy != "full") {
    return Unsupported(kConfig, absl::StrCat("vision_feature_select_strategy \"", strategy, "\""));
  }
  vision->drop_class_token = strategy == "default";
  return absl::OkStatus();
}

// Reads the vision tower and the projector. `vision_json` may be null.
absl::Status ReadVision(const Json& json, const Json* vision_json, ModelConfig* config) {
  const Json empty = Json::object();
  if (vision_json == nullptr) {
    // LlavaConfig's own default: CLIP ViT-L/14 at 336 pixels.
    ClipConfig& vision = config->vision;
    vision.hidden = 1024, vision.intermediate = 4096, vision.layers = 24;
    vision.heads = 16, vision.image_size = 336, vision.patch = 14;
    vision_json = &empty;
  }
  RETURN_IF_ERROR(ReadVisionConfig(*vision_json, "config.json: vision_config", &config->vision));
  RETURN_IF_ERROR(ReadVisionFeature(json, &config->vision));
  std::string activation = "gelu";
  RETURN_IF_ERROR(GetString(json, kConfig, "projector_hidden_act", &activation));
  ASSIGN_OR_RETURN(config->projector_activation,
                   ParseGelu("config.json: projector_hidden_act", activation));
  return absl::OkStatus();
}

// Reads a token id; -1 is none.
absl::Status ReadToken(const Json& object, absl::string_view where, const char* key, int vocab,
                       int* out) {
  return GetInt(object, where, key, -1, vocab - 1, out);
}

// Reads an id or a list of ids. Keeps `*out` if the key is absent.
absl::Status ReadEos(const Json& object, absl::string_view where, int vocab,
                     std::vector<int>* out) {
  const Json* eos = FindMember(object, "eos_token_id");
  if (eos == nullptr) return absl::OkStatus();
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  if (list.size() > kMaxEosTokens) return Invalid(where, "eos_token_id has too many ids");
  std::vector<int> ids;
  for (const Json& item : list) {
    int id = -1;
    RETURN_IF_ERROR(GetInt(Json{{"eos_token_id", item}}, where, "eos_token_id", 0, vocab - 1, &id));
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  *out = std::move(ids);
  return absl::OkStatus();
}

absl::Status ReadSpecialTokens(const Json& json, const Json& text_json, const Json& generation,
                               bool has_defaults, ModelConfig* config) {
  const int vocab = config->text.vocab;
  if (!has_defaults) {
    config->bos_token = -1;
    config->eos_tokens.clear();
  }
  int index = -1, id = -1;
  RETURN_IF_ERROR(GetInt(json, kConfig, "image_token_index", 0, vocab - 1, &index));
  RETURN_IF_ERROR(GetInt(json, kConfig, "image_token_id", 0, vocab - 1, &id));
  if (index >= 0 && id >= 0 && index != id) {
    return Invalid(kConfig, "image_token_index and image_token_id differ");
  }
  if (index >= 0 || id >= 0) config->image_token = std::max(index, id);
  if (config->image_token >= vocab) {
    return Invalid(kConfig, absl::StrCat("image token ", config->image_token,
                                         " is outside the vocabulary of ", vocab));
  }
  // A later source overrides an earlier one.
  const std::pair<const Json*, const char*> sources[] = {
      {&text_json, kTextConfig}, {&json, kConfig}, {&generation, kGeneration}};
  for (const auto& [source, where] : sources) {
    RETURN_IF_ERROR(ReadToken(*source, where, "bos_token_id", vocab, &config->bos_token));
    RETURN_IF_ERROR(ReadToken(*source, where, "pad_token_id", vocab, &config->pad_token));
    RETURN_IF_ERROR(ReadEos(*source, where, vocab, &config->eos_tokens));
  }
  if (config->bos_token >= vocab) config->bos_token = -1;
  for (int eos : config->eos_tokens) {
    if (eos >= vocab) return Invalid(kConfig, absl::StrCat("eos token ", eos, " >= vocab_size"));
  }
  if (config->eos_tokens.empty()) return Invalid(kConfig, "eos_token_id is missing");
  return absl::OkStatus();
}

absl::Status ReadGeneration(const Json& json, GenerationDefaults* out) {
  bool sample = false;
  RETURN_IF_ERROR(GetBool(json, kGeneration, "do_sample", &sample));
  RETURN_IF_ERROR(
      GetFloat(json, kGeneration, "repetition_penalty", 1e-3, 1e3, &out->repetition_penalty));
  // These are checked even if greedy search does not use them. 1, 50, 1 are transformers' defaults.
  float temperature = 1.0f, top_p = 1.0f;
  int top_k = 50;
  RETURN_IF_ERROR(GetFloat(json, kGeneration, "temperature", 0.0, 100.0, &temperature));
  RETURN_IF_ERROR(GetInt(json, kGeneration, "top_k", 0, kMaxVocab, &top_k));
  RETURN_IF_ERROR(GetFloat(json, kGeneration, "top_p", 0.0, 1.0, &top_p));
  if (!sample) return absl::OkStatus();
  if (top_p == 0.0f) return Invalid(kGeneration, "top_p is 0, which leaves no token");
  out->temperature = temperature;
  out->top_k = top_k;
  out->top_p = top_p;
  return absl::OkStatus();
}

// Returns the Jinja text of `chat_template`: a string, or the entry "default" of a list.
absl::StatusOr<std::string> TemplateText(const Json& json, absl::string_view where) {
  const Json* value = FindMember(json, "chat_template");
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) return Invalid(where, "chat_template is neither a string nor a list");
  for (const Json& entry : *value) {
    std::string name, text;
    RETURN_IF_ERROR(GetString(entry, where, "name", &name));
    RETURN_IF_ERROR(GetString(entry, where, "template", &text));
    if (name == "default") return text;
  }
  return "";
}

absl::StatusOr<Json> ParseOptional(const std::string& text, absl::string_view what) {
  if (text.empty()) return Json::object();
  ASSIGN_OR_RETURN(Json json, ParseJson(text, what));
  if (!json.is_object()) return Invalid(what, "not an object");
  return json;
}

absl::StatusOr<std::string> FindTemplate(const ModelConfigTexts& texts) {
  std::string jinja = texts.chat_template_jinja;
  const std::pair<const std::string*, const char*> sources[] = {
      {&texts.chat_template_json, "chat_template.json"},
      {&texts.tokenizer, "tokenizer_config.json"}};
  for (const auto& [text, what] : sources) {
    ASSIGN_OR_RETURN(const Json json, ParseOptional(*text, what));
    ASSIGN_OR_RETURN(const std::string found, TemplateText(json, what));
    if (jinja.empty()) jinja = found;
  }
  return jinja.empty() ? "vicuna" : RecognizeChatTemplate(jinja);
}

// Reads the image processor's settings. `text` is empty if the file is absent.
absl::Status ReadProcessor(const std::string& text, ModelConfig* config) {
  if (text.empty()) {
    config->processor.shortest_edge = config->processor.crop = config->vision.image_size;
  } else {
    ASSIGN_OR_RETURN(config->processor, ParseProcessorConfig(text));
  }
  if (config->processor.crop != config->vision.image_size) {
    return Invalid(
        "preprocessor_config.json",
        absl::StrCat("crop_size ", config->processor.crop,
                     " is not config.json's vision image_size ", config->vision.image_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const ModelConfigTexts& texts) {
  ASSIGN_OR_RETURN(const Json json, ParseJson(texts.config, kConfig));
  if (!json.is_object()) return Invalid(kConfig, "not an object");
  ModelConfig config;
  RETURN_IF_ERROR(GetString(json, kConfig, "model_type", &config.architecture));
  if (config.architecture != "llava") {
    return Unsupported(kConfig, absl::StrCat("model_type \"", config.architecture,
                                             "\"; this engine serves \"llava\""));
  }
  const Json kEmpty = Json::object();
  const Json* text_json = FindMember(json, "text_config");
  const Json* vision_json = FindMember(json, "vision_config");
  for (const Json* part : {text_json, vision_json}) {
    if (part != nullptr && !part->is_object()) {
      return Invalid(kConfig, "text_config and vision_config must be objects");
    }
  }
  if (text_json == nullptr) text_json = &kEmpty;

  RETURN_IF_ERROR(ReadText(json, *text_json, &config));
  RETURN_IF_ERROR(ReadVision(json, vision_json, &config));
  ASSIGN_OR_RETURN(const Json generation, ParseOptional(texts.generation, kGeneration));
  std::string model_type = "llama";
  RETURN_IF_ERROR(GetString(*text_json, kConfig, "model_type", &model_type));
  RETURN_IF_ERROR(
      ReadSpecialTokens(json, *text_json, generation, HasDefaultTokens(model_type), &config));
  RETURN_IF_ERROR(ReadGeneration(generation, &config.generation));
  ASSIGN_OR_RETURN(config.chat_template, FindTemplate(texts));
  RETURN_IF_ERROR(ReadProcessor(texts.preprocessor, &config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir) {
  constexpr int64_t kMaxBytes = 8 << 20;
  ModelConfigTexts texts;
  const std::pair<const char*, std::string*> files[] = {
      {"config.json", &texts.config},
      {"preprocessor_config.json", &texts.preprocessor},
      {"generation_config.json", &texts.generation},
      {"tokenizer_config.json", &texts.tokenizer},
      {"chat_template.jinja", &texts.chat_template_jinja},
      {"chat_template.json", &texts.chat_template_json}};
  for (const auto& [name, text] : files) {
    absl::StatusOr<std::string> content = ReadFile(absl::StrCat(dir, "/", name), kMaxBytes);
    if (content.ok()) {
      *text = *std::move(content);
    } else if (text == &texts.config || !absl::IsNotFound(content.status())) {
      return content.status();
    }
  }
  absl::StatusOr<ModelConfig> config = ParseModelConfig(texts);
  if (!config.ok()) {
    return absl::Status(config.status().code(), absl::StrCat(dir, "/", config.status().message()));
  }
  std::string trimmed = dir;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  config->name = trimmed.substr(trimmed.find_last_of('/') + 1);
  return config;
}

}  // namespace tessera
