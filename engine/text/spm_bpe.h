// SentencePiece's BPE: normalizes text, then merges symbols by piece score.
//
// Source: Kudo and Richardson 2018 (SentencePiece); Sennrich et al. 2016 (BPE).
// - The pair with the highest score merges first; among equals, the leftmost.
// - A character without a piece becomes its bytes, or the unknown piece without byte fallback.
//   Adjacent unknown pieces become one.
// - Unused pieces take part in merges and are split again at the end.
// - User-defined pieces are found before all merges, longest first, and never merge.
// Ownership: keeps views into `model`, which must outlive it. Threads: safe; immutable.
#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/spm_model.h"

namespace tessera {

class SpmBpe {
 public:
  // REQUIRES: ParseSpmModel has checked the model. Encode finds normal, user-defined and unused
  // pieces in text, and byte and unknown pieces for other characters; never control pieces.
  explicit SpmBpe(const SpmModel* model);

  struct Options {
    bool add_prefix = false;  // puts a space in front
    bool trim_front = false;  // drops leading spaces first, if the model removes extra spaces
  };
  // Rewrites spaces by the model's settings and replaces invalid bytes with U+FFFD.
  std::string Normalize(absl::string_view text, const Options& options) const;
  // Appends the ids of normalized text.
  void Encode(absl::string_view normalized, std::vector<int32_t>* out) const;

 private:
  class Merger;  // the symbols of one text while they merge

  // Returns the bytes of the user-defined piece at the start of `text`; 0 if there is none.
  size_t MatchUserDefined(absl::string_view text) const;
  int32_t FindPiece(absl::string_view text) const;  // -1: none
  // Appends the byte pieces or the unknown piece of a character that is not a piece.
  void EmitUnknown(absl::string_view character, std::vector<int32_t>* out) const;

  const SpmModel* model_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // normal, user-defined and unused pieces
  size_t longest_ = 0;                                   // bytes of the longest of these pieces
  std::vector<size_t> user_defined_lengths_;             // in bytes, distinct, descending
  std::bitset<256> user_defined_starts_;                 // first bytes of user-defined pieces
};

}  // namespace tessera
