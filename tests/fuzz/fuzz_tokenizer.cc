// Fuzzes the parser of tokenizer.model and tokenizer_config.json; the last byte of the input is the
// size of the latter. Any bytes give an error, or a tokenizer whose ids are in range and whose text
// is UTF-8. Text never encodes to control tokens.
#include "base/base.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  if (size < 1) return 0;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size - 1);
  const size_t config_bytes = std::min<size_t>(data[size - 1], bytes.size());
  TokenizerTexts texts;
  texts.model = std::string(bytes.substr(0, bytes.size() - config_bytes));
  texts.tokenizer_config = std::string(bytes.substr(bytes.size() - config_bytes));
  const absl::StatusOr<std::unique_ptr<Tokenizer>> parsed = Tokenizer::Parse(texts);
  if (!parsed.ok()) {
    TESSERA_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument ||
                  parsed.status().code() == absl::StatusCode::kUnimplemented ||
                  parsed.status().code() == absl::StatusCode::kDataLoss);
    return 0;
  }
  const Tokenizer& tokenizer = **parsed;
  for (const absl::string_view text : {absl::string_view("the  kettle <s></s> \xF0\x9F\x98\x80"),
                                       bytes.substr(0, std::min<size_t>(bytes.size(), 4096))}) {
    for (const bool first : {true, false}) {
      const std::vector<int32_t> ids = tokenizer.Encode(text, first);
      for (int32_t id : ids) {
        TESSERA_CHECK(id >= 0 && id < tokenizer.vocab_size());
        // A model without byte fallback encodes an unknown character as the unknown piece.
        TESSERA_CHECK(!tokenizer.IsControl(id) || !tokenizer.Piece(id).empty());
      }
      TESSERA_CHECK(IsValidUtf8(tokenizer.Decode(ids)));
    }
  }
  TESSERA_CHECK(tokenizer.bos() < tokenizer.vocab_size());
  return 0;
}
