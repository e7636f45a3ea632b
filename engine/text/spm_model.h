// Parses a SentencePiece model file (tokenizer.model) into a checked struct.
//
// The file is a protobuf message of pieces, trainer settings and normalizer settings. This code
// reads the wire format directly, without a protobuf library (tokenizer.h says why).
// Threads: safe; plain values.
// Errors, each with `what`: DATA_LOSS (not a valid message), INVALID_ARGUMENT (contradictory
// content), UNIMPLEMENTED (unigram, word and char models, character maps, spaces as suffix).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

inline constexpr char kSpaceMark[] = "\xE2\x96\x81";  // "▁", U+2581: a space inside a piece
constexpr size_t kMaxPieceBytes = 512;

struct SpmPiece {
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::string text;  // valid UTF-8, unique
  float score = 0;
  Type type = kNormal;
};

struct SpmModel {
  std::vector<SpmPiece> pieces;  // the index is the token id
  int32_t unknown = 0;           // the id of the only piece of type kUnknown
  bool byte_fallback = false;    // true: all 256 byte pieces exist
  int32_t byte_ids[256] = {};    // if byte_fallback: the id of each byte's piece
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Parses the file's `bytes`. `what` names the file in errors.
absl::StatusOr<SpmModel> ParseSpmModel(absl::string_view bytes, absl::string_view what);

}  // namespace tessera
