// Converts text to token ids and back: SentencePiece BPE (Llama, Vicuna, Mistral), read from
// tokenizer.model.
//
// Our own code reads the file: Debian's libsentencepiece links another protobuf and cannot share a
// process with gRPC. The tests compare with its command-line tools. spm_bpe.h has the algorithm.
//
// Encode never finds special tokens in text. A user who writes `<image>` or `</s>` gets plain text,
// even if the checkpoint stores the special token as an ordinary piece.
//
// Cost: Encode takes O(n log n) time and does not recurse.
// Threads: safe; immutable after Load.
// Errors: INVALID_ARGUMENT and DATA_LOSS name the file. UNIMPLEMENTED: unigram models, character
// maps (NFKC normalizers), spaces as suffix, add_eos_token, and added tokens that are not special
// or that strip the text next to them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// The contents of a checkpoint's tokenizer files; empty for an absent file.
struct TokenizerTexts {
  std::string model;  // tokenizer.model, required
  std::string tokenizer_config, added_tokens, special_tokens_map;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.model, and tokenizer_config.json, added_tokens.json and special_tokens_map.json
  // if they exist. Keys of tokenizer_config.json that matter: `legacy` (default true),
  // `add_prefix_space` (default true; ignored if legacy), `add_bos_token` (default true),
  // `bos_token` and `added_tokens_decoder`.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir);
  // Does the same with the files' contents, for tests and fuzzing.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const TokenizerTexts& texts);

  // Returns the ids of `text`, without BOS. `first`: only BOS precedes the text. With legacy=true
  // every text gets the model's dummy prefix ("▁"), even after a special token. Otherwise only the
  // first text does. Each invalid byte of UTF-8 is encoded as U+FFFD.
  virtual std::vector<int32_t> Encode(absl::string_view text, bool first) const = 0;

  // Returns the bytes that one token adds to the output: "▁" is a space, a byte piece its byte.
  // Returns "" for control tokens and for ids without text.
  virtual std::string TokenBytes(int32_t id) const = 0;
  // Returns the piece as the file stores it; "" for ids without text.
  virtual std::string Piece(int32_t id) const = 0;
  // Returns the text of `ids` without the dummy prefix. Invalid UTF-8 becomes U+FFFD.
  std::string Decode(const std::vector<int32_t>& ids) const;

  // The number of pieces and added tokens. Larger ids have no text.
  virtual int vocab_size() const = 0;
  // True for control tokens, the unknown token and special added tokens.
  virtual bool IsControl(int32_t id) const = 0;
  virtual int32_t bos() const = 0;  // -1: none
  virtual bool add_bos() const = 0;
  // Returns the id of a special token such as "<image>" or "</s>", or -1.
  virtual int32_t IdOf(absl::string_view special) const = 0;
  // True if the first "▁" of a text is the dummy prefix, which output omits.
  virtual bool dummy_prefix() const { return true; }
};

// Turns a stream of ids into pieces of valid UTF-8 (incremental detokenization).
//
// It holds back the bytes of an unfinished character. A byte that cannot belong to a character
// becomes U+FFFD, as in SentencePiece. The concatenated pieces equal Decode of all ids. The cost of
// Add does not depend on the text before. Threads: one.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  std::string Add(int32_t id);  // returns the text that is now complete
  std::string Finish();         // returns the rest, with U+FFFD for an unfinished character

 private:
  // Removes the complete characters from pending_, or all bytes, and returns them.
  std::string TakeComplete(bool all);
  const Tokenizer* tokenizer_;
  bool started_ = false;  // a token has produced text
  std::string pending_;   // at most 3 bytes between calls
};

}  // namespace tessera
