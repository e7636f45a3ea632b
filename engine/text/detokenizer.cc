#include "absl/strings/match.h"
#include "engine/text/spm_model.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace tessera {

std::string Detokenizer::Add(int32_t id) {
  std::string bytes = tokenizer_->TokenBytes(id);
  if (bytes.empty()) return "";
  if (!started_ && tokenizer_->dummy_prefix() &&
      absl::StartsWith(tokenizer_->Piece(id), kSpaceMark)) {
    bytes.erase(0, 1);
  }
  started_ = true;
  pending_ += bytes;
  return TakeComplete(false);
}

std::string Detokenizer::Finish() { return TakeComplete(true); }

std::string Detokenizer::TakeComplete(bool all) {
  std::string out;
  absl::string_view rest = pending_;
  while (!rest.empty()) {
    const int length = Utf8Length(rest);
    if (length > 0) {
      out.append(rest.data(), static_cast<size_t>(length));
      rest.remove_prefix(static_cast<size_t>(length));
    } else if (length < 0 && !all) {
      break;
    } else {
      out += kReplacementCharacter;
      rest.remove_prefix(1);
    }
  }
  pending_ = std::string(rest);
  return out;
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  Detokenizer detokenizer(this);
  std::string text;
  for (int32_t id : ids) text += detokenizer.Add(id);
  return text + detokenizer.Finish();
}

}  // namespace tessera
