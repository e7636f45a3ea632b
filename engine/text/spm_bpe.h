// SentencePiece's BPE: normalise text, then merge symbols by piece score.
//
// Source: Kudo and Richardson 2018 (SentencePiece); Sennrich et al. 2016 (BPE). The pair with the
// highest score merges first, the leftmost on ties; a character without a piece becomes its bytes,
// or the unknown piece (runs of unknowns are one). Pieces marked unused are merged through and
// split again at the end. User-defined pieces are found first, longest first, and never merge.
// Ownership: keeps views into `model`, which must outlive it. Threads: immutable, safe.
#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/spm_model.h"

namespace tessera {

class SpmBpe {
 public:
  // REQUIRES: model checked by ParseSpmModel. Pieces of types normal, user-defined and unused can
  // come out of text; control pieces never do.
  explicit SpmBpe(const SpmModel* model);

  struct Options {
    bool add_prefix = false;  // put a space in front
    bool trim_front = false;  // drop leading spaces first (where the model removes extra spaces)
  };
  // Spaces as the model wants them, invalid bytes as U+FFFD.
  std::string Normalize(absl::string_view text, const Options& options) const;
  // Appends the ids of normalised text.
  void Encode(absl::string_view normalized, std::vector<int32_t>* out) const;

 private:
  // Bytes of the user-defined piece at the start of `text`, 0 if there is none.
  size_t MatchUserDefined(absl::string_view text) const;
  int32_t FindPiece(absl::string_view text) const;  // -1: none
  void EmitUnmerged(absl::string_view symbol, std::vector<int32_t>* out) const;

  const SpmModel* model_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // what text can become
  size_t longest_ = 0;                                   // bytes of the longest of them
  std::vector<size_t> user_defined_lengths_;             // descending, distinct
  std::bitset<256> user_defined_starts_;                 // first bytes
};

}  // namespace tessera
