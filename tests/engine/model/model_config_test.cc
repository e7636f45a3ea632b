#include "engine/model/model_config.h"

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "tests/support/paths.h"
#include "tests/support/status_matchers.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// The published config.json of llava-1.5-7b-hf: most of the text model takes defaults.
constexpr char kPublished[] = R"({
  "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100,
  "image_token_index": 32000, "model_type": "llava", "pad_token_id": 32001,
  "projector_hidden_act": "gelu",
  "text_config": {
    "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
    "torch_dtype": "float16", "vocab_size": 32064},
  "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
  "vision_config": {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
    "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
    "patch_size": 14, "projection_dim": 768, "vocab_size": 32000},
  "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064})";

absl::StatusOr<ModelConfig> Parse(const Json& config) {
  return ParseModelConfig({.config = config.dump()});
}

// Returns the published file with `value` at `pointer` ("/text_config/head_dim").
Json With(const std::string& pointer, const Json& value) {
  Json json = Json::parse(kPublished);
  json[Json::json_pointer(pointer)] = value;
  return json;
}

TEST(ModelConfigTest, PublishedShapeTakesTransformersDefaults) {
  const auto config = Parse(Json::parse(kPublished));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llava");
  EXPECT_EQ(config->dtype, DType::kF16);
  const LlamaConfig& text = config->text;
  EXPECT_EQ(text.vocab, 32064);
  EXPECT_EQ(text.hidden, 4096);
  EXPECT_EQ(text.intermediate, 11008);
  EXPECT_EQ(text.layers, 32);
  EXPECT_EQ(text.heads, 32);
  EXPECT_EQ(text.kv_heads, 32);
  EXPECT_EQ(text.head_dim, 128);
  EXPECT_EQ(text.max_positions, 4096);
  EXPECT_EQ(text.rms_eps, 1e-5f);
  EXPECT_EQ(text.rope_theta, 10000.0f);
  EXPECT_FALSE(text.qkv_bias || text.o_bias || text.tied_embeddings);
  EXPECT_EQ(config->vision.hidden, 1024);
  EXPECT_EQ(config->vision.intermediate, 4096);
  EXPECT_EQ(config->vision.layers, 24);
  EXPECT_EQ(config->vision.heads, 16);
  EXPECT_EQ(config->vision.patch, 14);
  EXPECT_EQ(config->vision.eps, 1e-5f);
  EXPECT_EQ(config->vision.activation, Activation::kQuickGelu);
  EXPECT_EQ(config->vision.blocks(), 23);
  EXPECT_EQ(config->projector_activation, Activation::kGelu);
  EXPECT_EQ(config->tokens_per_image(), 576);
  EXPECT_EQ(config->image_token, 32000);
  EXPECT_EQ(config->pad_token, 32001);
  EXPECT_EQ(config->bos_token, 1);
  EXPECT_THAT(config->eos_tokens, ElementsAre(2));
  EXPECT_EQ(config->processor.crop, 336);
  EXPECT_EQ(config->processor.shortest_edge, 336);
  EXPECT_EQ(config->chat_template, "vicuna");
  EXPECT_EQ(config->generation.temperature, 0.0f);
}

TEST(ModelConfigTest, WithoutSubConfigsTheFamilysOwnDefaultsStand) {
  const auto config = Parse({{"model_type", "llava"}, {"image_token_index", 31999}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text.max_positions, 2048);
  EXPECT_EQ(config->text.rms_eps, 1e-6f);
  EXPECT_EQ(config->vision.image_size, 336);
  EXPECT_EQ(config->vision.hidden, 1024);
  EXPECT_EQ(config->dtype, DType::kBF16);
  // An empty vision_config takes CLIPVisionConfig's defaults.
  const auto clip = Parse(With("/vision_config", Json::object()));
  ASSERT_TRUE(clip.ok()) << clip.status();
  EXPECT_EQ(clip->vision.hidden, 768);
  EXPECT_EQ(clip->vision.image_size, 224);
  EXPECT_EQ(clip->tokens_per_image(), 49);
}

TEST(ModelConfigTest, DemoModelLoads) {
  const auto config = LoadModelConfig(SourcePath("models/demo/"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "demo");
  EXPECT_EQ(config->text.hidden, 256);
  EXPECT_EQ(config->text.head_dim, 128);
  EXPECT_EQ(config->text.layers, 8);
  EXPECT_EQ(config->tokens_per_image(), 64);
  EXPECT_EQ(config->image_token, 512);
  EXPECT_EQ(config->pad_token, 513);
  EXPECT_EQ(config->chat_template, "vicuna");
  EXPECT_TRUE(Fails(LoadModelConfig("/nonexistent"), absl::StatusCode::kNotFound,
                    {"/nonexistent/config.json"}));
}

TEST(ModelConfigTest, NewerKeyNames) {
  Json json = Json::parse(kPublished);
  json.erase("image_token_index");
  json.erase("torch_dtype");
  json["image_token_id"] = 32000;
  json["dtype"] = "bfloat16";
  json["text_config"]["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->image_token, 32000);
  EXPECT_EQ(config->dtype, DType::kBF16);
  EXPECT_EQ(config->text.rope_theta, 5e5f);
  json["image_token_index"] = 31000;
  EXPECT_TRUE(Fails(Parse(json), kInvalid, {"image_token_index", "image_token_id"}));
}

TEST(ModelConfigTest, DTypeComesFromTheTextModelWhenTheTopHasNone) {
  Json json = With("/text_config/torch_dtype", "float32");
  json.erase("torch_dtype");
  EXPECT_EQ(Parse(json)->dtype, DType::kF32);
  EXPECT_TRUE(Fails(Parse(With("/torch_dtype", "int8")), kUnimplemented, {"config.json", "int8"}));
}

TEST(ModelConfigTest, EosIsAnIdOrAListAndGenerationConfigWins) {
  EXPECT_THAT(Parse(With("/eos_token_id", 7))->eos_tokens, ElementsAre(7));
  EXPECT_THAT(Parse(With("/text_config/eos_token_id", {7, 9, 7}))->eos_tokens, ElementsAre(7, 9));
  const auto config = ParseModelConfig(
      {.config = With("/eos_token_id", 7).dump(),
       .generation = R"({"eos_token_id": [5, 6], "bos_token_id": 3, "pad_token_id": 0})"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_tokens, ElementsAre(5, 6));
  EXPECT_EQ(config->bos_token, 3);
  EXPECT_EQ(config->pad_token, 0);
  EXPECT_TRUE(Fails(Parse(With("/eos_token_id", 32064)), kInvalid, {"eos_token_id"}));
  EXPECT_TRUE(Fails(Parse(With("/eos_token_id", {1, "x"})), kInvalid, {"eos_token_id"}));
  EXPECT_TRUE(Fails(Parse(With("/eos_token_id", Json::array())), kInvalid, {"missing"}));
}

TEST(ModelConfigTest, GroupedQueriesHeadDimAndBiases) {
  Json json = Json::parse(kPublished);
  json["text_config"].update({{"num_attention_heads", 8},
                              {"num_key_value_heads", 2},
                              {"head_dim", 64},
                              {"attention_bias", true}});
  auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text.kv_heads, 2);
  EXPECT_EQ(config->text.head_dim, 64);
  EXPECT_TRUE(config->text.qkv_bias && config->text.o_bias);
  json["text_config"]["head_dim"] = nullptr;
  json["text_config"]["hidden_size"] = 640;
  EXPECT_EQ(Parse(json)->text.head_dim, 80);
  json["text_config"]["num_key_value_heads"] = 3;
  EXPECT_TRUE(Fails(Parse(json), kInvalid, {"num_key_value_heads 3"}));
}

TEST(ModelConfigTest, MistralDefaults) {
  const Json text = {{"model_type", "mistral"}, {"vocab_size", 32064}, {"sliding_window", nullptr}};
  const auto config = Parse(With("/text_config", text));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text.intermediate, 14336);
  EXPECT_EQ(config->text.kv_heads, 8);
  EXPECT_EQ(config->text.max_positions, 131072);
  Json json = With("/text_config", text);
  json["text_config"]["num_key_value_heads"] = nullptr;
  EXPECT_EQ(Parse(json)->text.kv_heads, 32);
  json["text_config"]["sliding_window"] = 4096;
  EXPECT_TRUE(Fails(Parse(json), kUnimplemented, {"sliding_window 4096"}));
  json["text_config"]["max_position_embeddings"] = 4096;
  EXPECT_TRUE(Parse(json).ok());
  json["text_config"].erase("sliding_window");  // the default, 4096, covers the whole context
  EXPECT_TRUE(Parse(json).ok());
  json["text_config"]["max_position_embeddings"] = 4097;
  EXPECT_TRUE(Fails(Parse(json), kUnimplemented, {"sliding_window"}));
}

TEST(ModelConfigTest, Qwen2Defaults) {
  Json json = With("/text_config", {{"model_type", "qwen2"},
                                    {"eos_token_id", 151645},
                                    {"sliding_window", 1024},
                                    {"attention_bias", true}});
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text.vocab, 151936);
  EXPECT_EQ(config->text.intermediate, 22016);
  EXPECT_EQ(config->text.max_positions, 32768);
  EXPECT_TRUE(config->text.qkv_bias);
  EXPECT_FALSE(config->text.o_bias);
  EXPECT_EQ(config->bos_token, -1);
  json["text_config"]["use_sliding_window"] = true;
  EXPECT_TRUE(Fails(Parse(json), kUnimplemented, {"sliding_window 1024"}));
  EXPECT_TRUE(Fails(Parse(With("/text_config", {{"model_type", "qwen2"}})), kInvalid,
                    {"eos_token_id is missing"}));
}

TEST(ModelConfigTest, TiedEmbeddingsAtEitherLevelTheNearerWins) {
  EXPECT_TRUE(Parse(With("/tie_word_embeddings", true))->text.tied_embeddings);
  EXPECT_TRUE(Parse(With("/text_config/tie_word_embeddings", true))->text.tied_embeddings);
  Json json = With("/tie_word_embeddings", true);
  json["text_config"]["tie_word_embeddings"] = false;
  EXPECT_FALSE(Parse(json)->text.tied_embeddings);
}

TEST(ModelConfigTest, VisionFeatures) {
  EXPECT_EQ(Parse(With("/vision_feature_select_strategy", "full"))->tokens_per_image(), 577);
  EXPECT_EQ(Parse(With("/vision_feature_layer", -1))->vision.blocks(), 24);
  EXPECT_EQ(Parse(With("/vision_feature_layer", 3))->vision.blocks(), 3);
  EXPECT_EQ(Parse(With("/vision_feature_layer", -25))->vision.blocks(), 0);
  EXPECT_EQ(Parse(With("/vision_config/hidden_act", "gelu"))->vision.activation, Activation::kGelu);
  EXPECT_TRUE(Fails(Parse(With("/vision_feature_layer", -26)), kInvalid, {"vision_feature_layer"}));
  EXPECT_TRUE(Fails(Parse(With("/vision_feature_layer", 25)), kInvalid, {"vision_feature_layer"}));
}

TEST(ModelConfigTest, RopeScalingNullOrDefaultIsFine) {
  EXPECT_TRUE(Parse(With("/text_config/rope_scaling", nullptr)).ok());
  EXPECT_TRUE(Parse(With("/text_config/rope_scaling", {{"rope_type", "default"}})).ok());
}

TEST(ModelConfigTest, RefusesWhatIsNotComputed) {
  const std::tuple<const char*, Json, const char*> cases[] = {
      {"/model_type", "llava_next", "llava_next"},
      {"/text_config/model_type", "gemma", "gemma"},
      {"/text_config/hidden_act", "gelu", "hidden_act"},
      {"/text_config/mlp_bias", true, "mlp_bias"},
      {"/text_config/rope_scaling", {{"type", "linear"}, {"factor", 2.0}}, "linear"},
      {"/text_config/rope_scaling", {{"factor", 2.0}}, "factor"},
      {"/text_config/rope_parameters", {{"rope_type", "yarn"}}, "yarn"},
      {"/text_config/partial_rotary_factor", 0.5, "partial_rotary_factor"},
      {"/text_config/head_dim", 100, "head dimension 100"},
      {"/vision_config/model_type", "siglip_vision_model", "siglip"},
      {"/vision_config/hidden_act", "gelu_pytorch_tanh", "tanh"},
      {"/vision_config/num_channels", 4, "num_channels"},
      {"/vision_feature_layer", {-2, -5}, "list"},
      {"/vision_feature_select_strategy", "cls", "cls"},
      {"/projector_hidden_act", "relu", "relu"}};
  for (const auto& [pointer, value, part] : cases) {
    EXPECT_TRUE(Fails(Parse(With(pointer, value)), kUnimplemented, {"config.json", part}))
        << pointer;
  }
}

TEST(ModelConfigTest, RefusesWrongValues) {
  const std::tuple<const char*, Json, const char*> cases[] = {
      {"/text_config", 5, "text_config"},
      {"/text_config/vocab_size", 0, "vocab_size"},
      {"/text_config/vocab_size", 1 << 21, "vocab_size"},
      {"/text_config/vocab_size", "32064", "vocab_size"},
      {"/text_config/vocab_size", 32000, "32000"},  // the image token is outside the vocabulary
      {"/text_config/hidden_size", -1, "hidden_size"},
      {"/text_config/hidden_size", 4095, "hidden_size"},
      {"/text_config/num_hidden_layers", 1'000'000, "num_hidden_layers"},
      {"/text_config/num_attention_heads", 0, "num_attention_heads"},
      {"/text_config/head_dim", 512, "head_dim"},
      {"/text_config/max_position_embeddings", int64_t{1} << 40, "max_position_embeddings"},
      {"/text_config/rms_norm_eps", -1.0, "rms_norm_eps"},
      {"/text_config/rope_theta", 0, "rope_theta"},
      {"/text_config/rope_scaling", 2, "rope_scaling"},
      {"/vision_config/patch_size", 0, "patch_size"},
      {"/vision_config/patch_size", 13, "patch_size"},
      {"/vision_config/num_attention_heads", 15, "num_attention_heads"},
      {"/vision_config/image_size", 1 << 20, "image_size"},
      {"/image_token_index", 32064, "image_token_index"},
      {"/image_token_index", -1, "image_token_index"},
      {"/pad_token_id", 40000, "pad_token_id"}};
  for (const auto& [pointer, value, part] : cases) {
    EXPECT_TRUE(Fails(Parse(With(pointer, value)), kInvalid, {"config.json", part})) << pointer;
  }
  EXPECT_TRUE(Fails(ParseModelConfig({.config = ""}), kInvalid, {"config.json"}));
  EXPECT_TRUE(Fails(ParseModelConfig({.config = "[]"}), kInvalid, {"config.json"}));
}

TEST(ModelConfigTest, GenerationDefaults) {
  const auto parse = [](const char* text) {
    return ParseModelConfig({.config = kPublished, .generation = text});
  };
  const GenerationDefaults greedy =
      parse(R"({"temperature": 0.9, "top_p": 0.6, "repetition_penalty": 1.1})")->generation;
  EXPECT_EQ(greedy.temperature, 0.0f);
  EXPECT_EQ(greedy.top_p, 1.0f);
  EXPECT_EQ(greedy.repetition_penalty, 1.1f);
  const GenerationDefaults sampled =
      parse(R"({"do_sample": true, "temperature": 0.9, "top_p": 0.6})")->generation;
  EXPECT_EQ(sampled.temperature, 0.9f);
  EXPECT_EQ(sampled.top_p, 0.6f);
  EXPECT_EQ(sampled.top_k, 50);
  for (const char* bad :
       {R"({"temperature": -1})", R"({"top_p": 1.5})", R"({"top_k": -1})", R"({"do_sample": 1})",
        R"({"do_sample": true, "top_p": 0})", R"({"repetition_penalty": 0})", "[]", "{"}) {
    EXPECT_TRUE(Fails(parse(bad), kInvalid, {"generation_config.json"})) << bad;
  }
}

TEST(ModelConfigTest, ChatTemplateIsFoundWhereverItIsKept) {
  const auto name = [](ModelConfigTexts texts) {
    texts.config = kPublished;
    const auto config = ParseModelConfig(texts);
    EXPECT_TRUE(config.ok()) << config.status();
    return config->chat_template;
  };
  EXPECT_EQ(name({.tokenizer = R"({"chat_template": "[INST] x [/INST]"})"}), "mistral");
  EXPECT_EQ(name({.tokenizer = R"({"chat_template": [{"name": "tool", "template": "[INST]"},
                                   {"name": "default", "template": "<|im_start|>"}]})"}),
            "chatml");
  EXPECT_EQ(name({.chat_template_json = R"({"chat_template": "<<SYS>> [INST]"})"}), "llama-2");
  EXPECT_EQ(name({.tokenizer = R"({"chat_template": "[INST]"})",
                  .chat_template_jinja = "USER ASSISTANT: "}),
            "vicuna");
  EXPECT_EQ(name({.tokenizer = R"({"chat_template": "<|start_header_id|>"})"}), "");
  EXPECT_EQ(name({.tokenizer = "{}"}), "vicuna");
  EXPECT_TRUE(
      Fails(ParseModelConfig({.config = kPublished, .tokenizer = R"({"chat_template": 5})"}),
            kInvalid, {"tokenizer_config.json", "chat_template"}));
}

TEST(ModelConfigTest, ProcessorMustFitTheVisionTower) {
  const auto parse = [](int crop) {
    return ParseModelConfig(
        {.config = kPublished,
         .preprocessor = absl::StrCat(
             R"({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336},)",
             R"( "crop_size": {"height": )", crop, R"(, "width": )", crop, "}}")});
  };
  EXPECT_TRUE(parse(336).ok()) << parse(336).status();
  EXPECT_TRUE(Fails(parse(224), kInvalid, {"preprocessor_config.json", "224", "336"}));
}

}  // namespace
}  // namespace tessera
