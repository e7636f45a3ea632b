#include "engine/model/model_config_parts.h"

#include "absl/strings/str_cat.h"

namespace tessera {

using Json = nlohmann::json;

namespace {

constexpr int kMaxWidth = 1 << 16;  // hidden sizes
constexpr int kMaxInner = 1 << 18;  // intermediate sizes
constexpr int kMaxLayers = 512;
constexpr int kMaxHeads = 1024;
constexpr int kMaxPositions = 1 << 24;
constexpr int kMaxHeadDim = 256;  // the kernels' limit
constexpr int kMaxImageSide = 4096;

absl::Status Invalid(absl::string_view where, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", why));
}

absl::Status Unsupported(absl::string_view where, const std::string& why) {
  return absl::UnimplementedError(absl::StrCat(where, ": ", why));
}

absl::Status CheckHeadDim(absl::string_view where, int head_dim) {
  if (head_dim % 8 != 0 || head_dim > kMaxHeadDim) {
    return Unsupported(where, absl::StrCat("head dimension ", head_dim,
                                           " is not a multiple of 8 up to ", kMaxHeadDim));
  }
  return absl::OkStatus();
}

// One text family: its defaults for absent keys, and what it fixes.
struct TextFamily {
  const char* model_type;
  LlamaConfig defaults;
  int default_kv_heads;     // 0: as many as heads
  bool qkv_bias;            // fixed by the family, not by `attention_bias`
  bool sliding_by_default;  // the sliding window is used unless the key is null
  bool has_default_tokens;  // bos is 1 and eos is 2
};

const TextFamily* FindFamily(absl::string_view model_type) {
  static const TextFamily kFamilies[] = {
      {"llama", {}, 0, false, false, true},
      {"mistral", {.intermediate = 14336, .max_positions = 131072}, 8, false, true, true},
      {"qwen2",
       {.vocab = 151936, .intermediate = 22016, .max_positions = 32768},
       32,
       true,
       false,
       false},
  };
  for (const TextFamily& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

// Reads rope_theta (older files) or rope_parameters (newer ones). Rejects everything but plain
// RoPE.
absl::Status ReadRope(const Json& json, absl::string_view where, LlamaConfig* text) {
  RETURN_IF_ERROR(GetFloat(json, where, "rope_theta", 1.0, 1e12, &text->rope_theta));
  float partial = 1.0f;
  RETURN_IF_ERROR(GetFloat(json, where, "partial_rotary_factor", 0.0, 1.0, &partial));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = FindMember(json, key);
    if (rope == nullptr) continue;
    const std::string at = absl::StrCat(where, ".", key);
    if (!rope->is_object()) return Invalid(at, "not an object");
    std::string type = "default";
    RETURN_IF_ERROR(GetString(*rope, at, "type", &type));
    RETURN_IF_ERROR(GetString(*rope, at, "rope_type", &type));
    if (type != "default") return Unsupported(at, absl::StrCat("rope type \"", type, "\""));
    if (FindMember(*rope, "factor") != nullptr) return Unsupported(at, "rope scaling factor");
    RETURN_IF_ERROR(GetFloat(*rope, at, "rope_theta", 1.0, 1e12, &text->rope_theta));
    RETURN_IF_ERROR(GetFloat(*rope, at, "partial_rotary_factor", 0.0, 1.0, &partial));
  }
  if (partial != 1.0f) return Unsupported(where, "partial_rotary_factor below 1");
  return absl::OkStatus();
}

absl::Status ReadSlidingWindow(const Json& json, absl::string_view where, const TextFamily& family,
                               int max_positions) {
  if (absl::string_view(family.model_type) == "llama") return absl::OkStatus();
  bool used = family.sliding_by_default;
  RETURN_IF_ERROR(GetBool(json, where, "use_sliding_window", &used));
  if (!used) return absl::OkStatus();
  if (json.contains("sliding_window") && json["sliding_window"].is_null()) return absl::OkStatus();
  int window = 4096;  // the default of both families
  RETURN_IF_ERROR(GetInt(json, where, "sliding_window", 1, kMaxPositions, &window));
  if (window >= max_positions) return absl::OkStatus();
  return Unsupported(where, absl::StrCat("sliding_window ", window, " below the context of ",
                                         max_positions, " tokens"));
}

}  // namespace

bool HasDefaultTokens(absl::string_view model_type) {
  const TextFamily* family = FindFamily(model_type);
  return family != nullptr && family->has_default_tokens;
}

absl::Status ReadTextConfig(const Json& json, absl::string_view where, LlamaConfig* text) {
  std::string model_type = "llama";
  RETURN_IF_ERROR(GetString(json, where, "model_type", &model_type));
  const TextFamily* family = FindFamily(model_type);
  if (family == nullptr) {
    return Unsupported(where, absl::StrCat("model_type \"", model_type, "\""));
  }
  *text = family->defaults;
  text->family = family->model_type;
  RETURN_IF_ERROR(GetInt(json, where, "vocab_size", 1, kMaxVocab, &text->vocab));
  RETURN_IF_ERROR(GetInt(json, where, "hidden_size", 1, kMaxWidth, &text->hidden));
  RETURN_IF_ERROR(GetInt(json, where, "intermediate_size", 1, kMaxInner, &text->intermediate));
  RETURN_IF_ERROR(GetInt(json, where, "num_hidden_layers", 1, kMaxLayers, &text->layers));
  RETURN_IF_ERROR(GetInt(json, where, "num_attention_heads", 1, kMaxHeads, &text->heads));
  // An explicit null means "as many as heads" in every family.
  const bool null_kv = json.contains("num_key_value_heads");
  text->kv_heads =
      family->default_kv_heads == 0 || null_kv ? text->heads : family->default_kv_heads;
  RETURN_IF_ERROR(GetInt(json, where, "num_key_value_heads", 1, kMaxHeads, &text->kv_heads));
  if (text->heads % text->kv_heads != 0) {
    return Invalid(where,
                   absl::StrCat("num_attention_heads ", text->heads,
                                " is not a multiple of num_key_value_heads ", text->kv_heads));
  }
  if (FindMember(json, "head_dim") != nullptr) {
    RETURN_IF_ERROR(GetInt(json, where, "head_dim", 1, kMaxHeadDim, &text->head_dim));
  } else if (text->hidden % text->heads != 0) {
    return Invalid(where, absl::StrCat("hidden_size ", text->hidden,
                                       " is not a multiple of num_attention_heads ", text->heads));
  } else {
    text->head_dim = text->hidden / text->heads;
  }
  RETURN_IF_ERROR(CheckHeadDim(where, text->head_dim));
  RETURN_IF_ERROR(
      GetInt(json, where, "max_position_embeddings", 1, kMaxPositions, &text->max_positions));
  RETURN_IF_ERROR(GetFloat(json, where, "rms_norm_eps", 0.0, 1.0, &text->rms_eps));
  RETURN_IF_ERROR(ReadRope(json, where, text));
  RETURN_IF_ERROR(ReadSlidingWindow(json, where, *family, text->max_positions));

  std::string activation = "silu";
  RETURN_IF_ERROR(GetString(json, where, "hidden_act", &activation));
  if (activation != "silu") {
    return Unsupported(where, absl::StrCat("hidden_act \"", activation, "\""));
  }
  bool attention_bias = false, mlp_bias = false;
  RETURN_IF_ERROR(GetBool(json, where, "attention_bias", &attention_bias));
  RETURN_IF_ERROR(GetBool(json, where, "mlp_bias", &mlp_bias));
  if (mlp_bias) return Unsupported(where, "mlp_bias");
  const bool bias_from_config = absl::string_view(family->model_type) == "llama";
  text->qkv_bias = family->qkv_bias || (bias_from_config && attention_bias);
  text->o_bias = bias_from_config && attention_bias;
  return GetBool(json, where, "tie_word_embeddings", &text->tied_embeddings);
}

absl::StatusOr<Activation> ParseGelu(absl::string_view where, absl::string_view name) {
  if (name == "gelu") return Activation::kGelu;
  if (name == "quick_gelu") return Activation::kQuickGelu;
  return Unsupported(where, absl::StrCat("activation \"", name, "\""));
}

absl::Status ReadVisionConfig(const Json& json, absl::string_view where, ClipConfig* vision) {
  std::string model_type = "clip_vision_model", activation = "quick_gelu";
  RETURN_IF_ERROR(GetString(json, where, "model_type", &model_type));
  if (model_type != "clip_vision_model") {
    return Unsupported(where, absl::StrCat("model_type \"", model_type, "\""));
  }
  int channels = 3;
  RETURN_IF_ERROR(GetInt(json, where, "num_channels", 1, 1024, &channels));
  if (channels != 3) return Unsupported(where, absl::StrCat("num_channels ", channels));
  RETURN_IF_ERROR(GetInt(json, where, "hidden_size", 1, kMaxWidth, &vision->hidden));
  RETURN_IF_ERROR(GetInt(json, where, "intermediate_size", 1, kMaxInner, &vision->intermediate));
  RETURN_IF_ERROR(GetInt(json, where, "num_hidden_layers", 1, kMaxLayers, &vision->layers));
  RETURN_IF_ERROR(GetInt(json, where, "num_attention_heads", 1, kMaxHeads, &vision->heads));
  RETURN_IF_ERROR(GetInt(json, where, "image_size", 1, kMaxImageSide, &vision->image_size));
  RETURN_IF_ERROR(GetInt(json, where, "patch_size", 1, kMaxImageSide, &vision->patch));
  RETURN_IF_ERROR(GetFloat(json, where, "layer_norm_eps", 0.0, 1.0, &vision->eps));
  RETURN_IF_ERROR(GetString(json, where, "hidden_act", &activation));
  ASSIGN_OR_RETURN(vision->activation, ParseGelu(where, activation));
  if (vision->hidden % vision->heads != 0) {
    return Invalid(where,
                   absl::StrCat("hidden_size ", vision->hidden,
                                " is not a multiple of num_attention_heads ", vision->heads));
  }
  RETURN_IF_ERROR(CheckHeadDim(where, vision->hidden / vision->heads));
  if (vision->image_size % vision->patch != 0) {
    return Invalid(where, absl::StrCat("image_size ", vision->image_size,
                                       " is not a multiple of patch_size ", vision->patch));
  }
  return absl::OkStatus();
}

}  // namespace tessera
