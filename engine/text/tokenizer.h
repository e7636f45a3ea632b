// Text <-> token ids: SentencePiece BPE (Llama, Vicuna, Mistral) read from tokenizer.model.
//
// tokenizer.model is a protobuf message read by our own wire reader: Debian's libsentencepiece
// carries another protobuf and cannot share a process with gRPC (tests use its command-line tools
// as an oracle). Merge by score, leftmost first on ties, byte fallback, user-defined pieces, unused
// pieces. Special tokens are never parsed out of text: `<image>` or `</s>` written by a user is
// plain text, also where a checkpoint stores a special token as an ordinary piece. Cost: Encode is
// O(n log n) and does not recurse. Threads: immutable after Load, safe. Errors: INVALID_ARGUMENT /
// DATA_LOSS naming the file; UNIMPLEMENTED for unigram models, character maps (NFKC normalisers),
// spaces as suffix, added tokens that are not special or strip their neighbours, add_eos_token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct TokenizerTexts {
  std::string model;  // tokenizer.model's bytes
  std::string tokenizer_config, added_tokens, special_tokens_map;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.model, and tokenizer_config.json, added_tokens.json, special_tokens_map.json
  // where present. Of tokenizer_config.json: `legacy` (default true), `add_prefix_space` (default
  // true, not legacy only), `add_bos_token` (default true), `bos_token`, `added_tokens_decoder`.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir);
  // From the files' contents, for tests and fuzzing; empty strings stand for absent files.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const TokenizerTexts& texts);

  // Ids of `text`, no BOS. `first`: nothing but BOS stands before it. With legacy=true every text
  // gets the model's dummy prefix ("▁"), also after a special token; else only the first does.
  // Invalid UTF-8 is encoded as U+FFFD, one for each wrong byte.
  virtual std::vector<int32_t> Encode(absl::string_view text, bool first) const = 0;

  // The raw bytes of one token for output: "▁" as space, byte pieces as bytes, control tokens "".
  // Ids without text give "".
  virtual std::string TokenBytes(int32_t id) const = 0;
  virtual std::string Piece(int32_t id) const = 0;  // as stored; "" for ids without text
  // All of `ids` as text, the leading dummy space removed; invalid UTF-8 becomes U+FFFD.
  std::string Decode(const std::vector<int32_t>& ids) const;

  virtual int vocab_size() const = 0;            // pieces and added tokens; ids beyond have no text
  virtual bool IsControl(int32_t id) const = 0;  // control, unknown or special added token
  virtual int32_t bos() const = 0;
  virtual bool add_bos() const = 0;
  virtual int32_t IdOf(absl::string_view special) const = 0;  // e.g. "<image>", "</s>"; -1: none
  // Whether the first "▁" of a text is the dummy prefix, which output leaves out.
  virtual bool dummy_prefix() const { return true; }
};

// Turns a stream of ids into valid UTF-8 pieces; bytes of an unfinished character are held back,
// and every byte that cannot be part of one becomes U+FFFD (as sentencepiece does). The pieces of a
// stream joined are Decode of its ids. One thread. Never decodes the whole text again.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  std::string Add(int32_t id);  // text that became complete
  std::string Finish();         // what is left, invalid bytes as U+FFFD

 private:
  std::string TakeComplete(bool all);
  const Tokenizer* tokenizer_;
  bool started_ = false;  // some token has given text
  std::string pending_;   // at most 3 bytes between calls
};

}  // namespace tessera
