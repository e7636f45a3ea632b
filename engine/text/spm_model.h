// A SentencePiece model file (tokenizer.model) as a checked struct.
//
// The file is a protobuf message of pieces, trainer and normaliser settings; this reads its wire
// format directly, without a protobuf library. Threads: immutable. Errors: DATA_LOSS (not a valid
// message), INVALID_ARGUMENT (contradictory content), UNIMPLEMENTED (kinds that are not encoded
// here: unigram, word and char models, character maps, spaces as suffix), naming `what`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

inline constexpr char kSpaceMark[] = "\xE2\x96\x81";  // "▁", U+2581: how pieces write a space
constexpr size_t kMaxPieceBytes = 512;

struct SpmPiece {
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::string text;  // valid UTF-8, unique
  float score = 0;
  Type type = kNormal;
};

struct SpmModel {
  std::vector<SpmPiece> pieces;  // the index is the token id
  int32_t unknown = 0;           // the one piece of type kUnknown
  bool byte_fallback = false;    // then all 256 byte pieces exist
  int32_t byte_ids[256] = {};
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

absl::StatusOr<SpmModel> ParseSpmModel(absl::string_view bytes, absl::string_view what);

}  // namespace tessera
