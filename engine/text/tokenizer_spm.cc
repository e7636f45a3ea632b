#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/base.h"
#include "base/json.h"
#include "base/read_file.h"
#include "engine/text/spm_bpe.h"
#include "engine/text/spm_model.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr char kModelFile[] = "tokenizer.model";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr char kAddedFile[] = "added_tokens.json";
constexpr char kSpecialFile[] = "special_tokens_map.json";
constexpr int64_t kMaxModelBytes = 64 << 20;
constexpr int kMaxTokenId = 1 << 20;

absl::Status Invalid(absl::string_view what, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", why));
}

struct Settings {
  bool legacy = true;
  bool add_prefix_space = true;
  bool add_bos = true;
  std::string bos = "<s>";                          // empty: none
  absl::flat_hash_map<std::string, int32_t> added;  // content -> id
  std::vector<std::string> special;                 // contents that text never encodes to
};

// Reads a token's content. The files write "..." or {"content": "...", ...}.
absl::Status TokenContent(const Json& json, absl::string_view what, const std::string& key,
                          std::string* out) {
  const Json* content = json.is_object() ? FindMember(json, "content") : &json;
  if (content == nullptr || !content->is_string()) {
    return Invalid(what, absl::StrCat(key, " is neither a string nor an object with content"));
  }
  *out = content->get<std::string>();
  return absl::OkStatus();
}

absl::Status AddToken(absl::string_view what, const std::string& content, int32_t id,
                      Settings* settings) {
  if (content.empty() || content.size() > kMaxPieceBytes || !IsValidUtf8(content)) {
    return Invalid(what, absl::StrCat("added token ", id, " has bad content"));
  }
  const auto [it, added] = settings->added.emplace(content, id);
  if (!added && it->second != id) {
    return Invalid(what,
                   absl::StrCat("added token \"", content, "\" has ids ", it->second, " and ", id));
  }
  return absl::OkStatus();
}

// Reads {"32000": {"content": "<image>", "special": true, "lstrip": false, ...}, ...}.
absl::Status ReadAddedTokensDecoder(const Json& config, Settings* settings) {
  const Json* decoder = FindMember(config, "added_tokens_decoder");
  if (decoder == nullptr) return absl::OkStatus();
  if (!decoder->is_object()) return Invalid(kConfigFile, "added_tokens_decoder is not an object");
  for (const auto& [key, entry] : decoder->items()) {
    int32_t id;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id >= kMaxTokenId) {
      return Invalid(kConfigFile,
                     absl::StrCat("added_tokens_decoder has the bad id ", key.substr(0, 32)));
    }
    const std::string at = absl::StrCat(kConfigFile, ": added token ", id);
    std::string content;
    bool special = false, lstrip = false, rstrip = false;
    RETURN_IF_ERROR(TokenContent(entry, kConfigFile, key, &content));
    RETURN_IF_ERROR(GetBool(entry, at, "special", &special));
    RETURN_IF_ERROR(GetBool(entry, at, "lstrip", &lstrip));
    RETURN_IF_ERROR(GetBool(entry, at, "rstrip", &rstrip));
    if (lstrip || rstrip)
      return absl::UnimplementedError(absl::StrCat(at, ": lstrip and rstrip are not supported"));
    RETURN_IF_ERROR(AddToken(at, content, id, settings));
    if (special) settings->special.push_back(content);
  }
  return absl::OkStatus();
}

// Reads the named special tokens of tokenizer_config.json or special_tokens_map.json.
absl::Status ReadNamedSpecials(const Json& json, absl::string_view what, Settings* settings) {
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                          "cls_token", "mask_token", "additional_special_tokens"}) {
    const Json* value = FindMember(json, key);
    if (value == nullptr) continue;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& item : list) {
      RETURN_IF_ERROR(TokenContent(item, what, key, &settings->special.emplace_back()));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const std::string& text, Settings* settings) {
  if (text.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Json json, ParseJson(text, kAddedFile));
  if (!json.is_object()) return Invalid(kAddedFile, "not an object");
  for (const auto& [content, value] : json.items()) {
    int id = -1;
    RETURN_IF_ERROR(GetInt(Json{{"id", value}}, kAddedFile, "id", 0, kMaxTokenId - 1, &id));
    if (id < 0) return Invalid(kAddedFile, "a token has no id");
    RETURN_IF_ERROR(AddToken(kAddedFile, content, id, settings));
    settings->special.push_back(content);
  }
  return absl::OkStatus();
}

absl::StatusOr<Settings> ReadSettings(const TokenizerTexts& texts) {
  Settings settings;
  if (!texts.tokenizer_config.empty()) {
    ASSIGN_OR_RETURN(const Json json, ParseJson(texts.tokenizer_config, kConfigFile));
    if (!json.is_object()) return Invalid(kConfigFile, "not an object");
    bool add_eos = false;
    RETURN_IF_ERROR(GetBool(json, kConfigFile, "legacy", &settings.legacy));
    RETURN_IF_ERROR(GetBool(json, kConfigFile, "add_prefix_space", &settings.add_prefix_space));
    RETURN_IF_ERROR(GetBool(json, kConfigFile, "add_bos_token", &settings.add_bos));
    RETURN_IF_ERROR(GetBool(json, kConfigFile, "add_eos_token", &add_eos));
    if (add_eos)
      return absl::UnimplementedError(
          absl::StrCat(kConfigFile, ": add_eos_token is not supported"));
    if (const Json* bos = FindMember(json, "bos_token"); bos != nullptr) {
      RETURN_IF_ERROR(TokenContent(*bos, kConfigFile, "bos_token", &settings.bos));
    } else if (json.contains("bos_token")) {
      settings.bos.clear();
    }
    RETURN_IF_ERROR(ReadNamedSpecials(json, kConfigFile, &settings));
    RETURN_IF_ERROR(ReadAddedTokensDecoder(json, &settings));
  }
  if (!texts.special_tokens_map.empty()) {
    ASSIGN_OR_RETURN(const Json json, ParseJson(texts.special_tokens_map, kSpecialFile));
    RETURN_IF_ERROR(ReadNamedSpecials(json, kSpecialFile, &settings));
  }
  RETURN_IF_ERROR(ReadAddedTokens(texts.added_tokens, &settings));
  return settings;
}

class SpmTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(SpmModel model, const Settings& settings) {
    absl::flat_hash_map<std::string, int32_t> pieces;
    for (size_t id = 0; id < model.pieces.size(); ++id) {
      pieces.emplace(model.pieces[id].text, static_cast<int32_t>(id));
    }
    // A user's text must not encode to a special token that is stored as an ordinary piece.
    for (const std::string& content : settings.special) {
      const auto it = pieces.find(content);
      if (it == pieces.end()) continue;
      SpmPiece::Type& type = model.pieces[it->second].type;
      if (type != SpmPiece::kUnknown && type != SpmPiece::kByte) type = SpmPiece::kControl;
    }
    auto tokenizer = std::unique_ptr<SpmTokenizer>(new SpmTokenizer(std::move(model), settings));
    for (const auto& [content, id] : settings.added) {
      RETURN_IF_ERROR(tokenizer->Add(content, id, pieces, settings));
    }
    tokenizer->bos_ = settings.bos.empty() ? -1 : tokenizer->IdOf(settings.bos);
    tokenizer->add_bos_ = settings.add_bos && tokenizer->bos_ >= 0;
    return tokenizer;
  }

  std::vector<int32_t> Encode(absl::string_view text, bool first) const override {
    SpmBpe::Options options{.add_prefix = model_.add_dummy_prefix, .trim_front = true};
    if (!legacy_) options = {.add_prefix = first && add_prefix_space_, .trim_front = false};
    std::vector<int32_t> ids;
    bpe_.Encode(bpe_.Normalize(text, options), &ids);
    return ids;
  }

  std::string TokenBytes(int32_t id) const override {
    if (!InRange(id) || IsControl(id)) return "";
    const SpmPiece& piece = model_.pieces[id];
    if (piece.type == SpmPiece::kByte) {
      const auto* end = model_.byte_ids + 256;
      return std::string(1,
                         static_cast<char>(std::find(model_.byte_ids, end, id) - model_.byte_ids));
    }
    return absl::StrReplaceAll(piece.text, {{kSpaceMark, " "}});
  }

  std::string Piece(int32_t id) const override {
    if (InRange(id)) return model_.pieces[id].text;
    const auto it = added_.find(id);
    return it == added_.end() ? "" : it->second;
  }

  int vocab_size() const override { return vocab_size_; }
  bool IsControl(int32_t id) const override {
    if (!InRange(id)) return added_.contains(id);
    const SpmPiece::Type type = model_.pieces[id].type;
    return type == SpmPiece::kControl || type == SpmPiece::kUnknown;
  }
  int32_t bos() const override { return bos_; }
  bool add_bos() const override { return add_bos_; }
  int32_t IdOf(absl::string_view special) const override {
    const auto it = special_ids_.find(special);
    return it == special_ids_.end() ? -1 : it->second;
  }
  bool dummy_prefix() const override {
    return legacy_ ? model_.add_dummy_prefix : add_prefix_space_;
  }

 private:
  SpmTokenizer(SpmModel model, const Settings& settings)
      : model_(std::move(model)),
        bpe_(&model_),
        legacy_(settings.legacy),
        add_prefix_space_(settings.add_prefix_space),
        vocab_size_(static_cast<int>(model_.pieces.size())) {
    for (int32_t id = 0; id < vocab_size_; ++id) {
      if (IsControl(id)) special_ids_.emplace(model_.pieces[id].text, id);
    }
  }

  absl::Status Add(const std::string& content, int32_t id,
                   const absl::flat_hash_map<std::string, int32_t>& pieces,
                   const Settings& settings) {
    const auto piece = pieces.find(content);
    const bool in_model = piece != pieces.end();
    if (in_model ? piece->second != id : InRange(id)) {
      return Invalid(kAddedFile, absl::StrCat("added token \"", content, "\" = ", id,
                                              " contradicts ", kModelFile));
    }
    if (in_model) return absl::OkStatus();
    if (std::find(settings.special.begin(), settings.special.end(), content) ==
        settings.special.end()) {
      return absl::UnimplementedError(
          absl::StrCat(kConfigFile, ": added token \"", content, "\" is not special"));
    }
    if (!added_.emplace(id, content).second) {
      return Invalid(kAddedFile, absl::StrCat("two added tokens with id ", id));
    }
    special_ids_.emplace(content, id);
    vocab_size_ = std::max(vocab_size_, id + 1);
    return absl::OkStatus();
  }

  bool InRange(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < model_.pieces.size();
  }

  const SpmModel model_;
  const SpmBpe bpe_;  // holds views of model_
  const bool legacy_;
  const bool add_prefix_space_;
  int vocab_size_;
  int32_t bos_ = -1;
  bool add_bos_ = false;
  absl::flat_hash_map<int32_t, std::string> added_;  // tokens that are not in the model
  absl::flat_hash_map<std::string, int32_t> special_ids_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(const TokenizerTexts& texts) {
  ASSIGN_OR_RETURN(Settings settings, ReadSettings(texts));
  ASSIGN_OR_RETURN(SpmModel model, ParseSpmModel(texts.model, kModelFile));
  return SpmTokenizer::Make(std::move(model), settings);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& dir) {
  TokenizerTexts texts;
  const std::pair<const char*, std::string*> files[] = {{kModelFile, &texts.model},
                                                        {kConfigFile, &texts.tokenizer_config},
                                                        {kAddedFile, &texts.added_tokens},
                                                        {kSpecialFile, &texts.special_tokens_map}};
  for (const auto& [name, text] : files) {
    absl::StatusOr<std::string> content = ReadFile(absl::StrCat(dir, "/", name), kMaxModelBytes);
    if (content.ok()) {
      *text = *std::move(content);
    } else if (text == &texts.model || !absl::IsNotFound(content.status())) {
      return content.status();
    }
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Parse(texts);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        absl::StrCat(dir, "/", tokenizer.status().message()));
  }
  return tokenizer;
}

}  // namespace tessera
