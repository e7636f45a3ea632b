// Text <-> token ids: SentencePiece BPE (Llama, Vicuna, Mistral) read from tokenizer.model.
//
// tokenizer.model is a protobuf message read by our own wire reader: Debian's libsentencepiece
// carries another protobuf and cannot share a process with gRPC (tests use its command-line tools
// as an oracle). Merge by score, leftmost first on ties, byte fallback. Special tokens are never
// parsed out of text: `<image>` or `</s>` written by a user is plain text. Threads: immutable after
// Load, safe. Errors: INVALID_ARGUMENT / DATA_LOSS naming the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.model, and added_tokens.json / tokenizer_config.json / special_tokens_map.json
  // where present (`legacy`, default true; add_bos_token, default true).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir);
  // From bytes: `model` is tokenizer.model's content; for tests and fuzzing.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(absl::string_view model,
                                                          absl::string_view tokenizer_config,
                                                          absl::string_view added_tokens);

  // Ids of `text`, no BOS. `first`: this is the prompt's first text. A piece after a special token
  // gets the dummy prefix when the model was trained with legacy=true, else only the first does.
  virtual std::vector<int32_t> Encode(absl::string_view text, bool first) const = 0;

  // The raw bytes of one token for output: "▁" as space, byte pieces as bytes, control tokens "".
  virtual std::string TokenBytes(int32_t id) const = 0;
  virtual std::string Piece(int32_t id) const = 0;  // as stored; "" for ids without text
  // All of `ids` as text, the leading dummy space removed; invalid UTF-8 becomes U+FFFD.
  std::string Decode(const std::vector<int32_t>& ids) const;

  virtual int vocab_size() const = 0;            // pieces and added tokens; ids beyond have no text
  virtual bool IsControl(int32_t id) const = 0;  // control, unknown or special added token
  virtual int32_t bos() const = 0;
  virtual bool add_bos() const = 0;
  virtual int32_t IdOf(absl::string_view special) const = 0;  // e.g. "<image>", "</s>"; -1: none
};

// Turns a stream of ids into valid UTF-8 pieces; bytes of an unfinished character are held back.
// One thread. Never decodes the whole text again.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  std::string Add(int32_t id);  // text that became complete
  std::string Finish();         // what is left, invalid bytes as U+FFFD

 private:
  std::string TakeComplete(bool all);
  const Tokenizer* tokenizer_;
  bool started_ = false;
  std::string pending_;
};

}  // namespace tessera
