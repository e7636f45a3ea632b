#include "engine/text/spm_model.h"

#include <bit>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/base.h"
#include "engine/text/utf8.h"

namespace tessera {
namespace {

constexpr size_t kMaxPieces = 1 << 20;

// One field of a protobuf message. The format uses no groups (wire types 3 and 4).
struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;
  uint64_t value = 0;       // wire types 0, 1, 5
  absl::string_view bytes;  // wire type 2
};

class WireReader {
 public:
  explicit WireReader(absl::string_view bytes) : rest_(bytes) {}

  // Returns false at the end of the message and on an error.
  bool Next(Field* field) {
    if (rest_.empty()) return false;
    uint64_t key;
    ok_ = Varint(&key) && key >> 32 == 0;
    if (!ok_) return false;
    *field = {static_cast<uint32_t>(key >> 3), static_cast<uint32_t>(key & 7), 0, {}};
    switch (field->wire) {
      case 0:
        ok_ = Varint(&field->value);
        break;
      case 1:
        ok_ = Fixed(8, &field->value);
        break;
      case 5:
        ok_ = Fixed(4, &field->value);
        break;
      case 2: {
        uint64_t size;
        ok_ = Varint(&size) && size <= rest_.size();
        if (!ok_) break;
        field->bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        break;
      }
      default:
        ok_ = false;
    }
    ok_ = ok_ && field->number != 0;
    return ok_;
  }
  bool ok() const { return ok_; }

 private:
  bool Varint(uint64_t* out) {
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const uint8_t byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      *out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Fixed(size_t size, uint64_t* out) {
    if (rest_.size() < size) return false;
    *out = 0;
    for (size_t i = 0; i < size; ++i) {
      *out |= static_cast<uint64_t>(static_cast<uint8_t>(rest_[i])) << (8 * i);
    }
    rest_.remove_prefix(size);
    return true;
  }

  absl::string_view rest_;
  bool ok_ = true;
};

struct Settings {
  uint64_t model_type = 1;  // the format's default: unigram
  bool space_as_suffix = false;
  bool has_character_map = false;
};

constexpr uint64_t kModelTypeBpe = 2;

bool ReadPiece(absl::string_view bytes, SpmPiece* piece) {
  WireReader reader(bytes);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == 1 && field.wire == 2) {
      piece->text = std::string(field.bytes);
    } else if (field.number == 2 && field.wire == 5) {
      piece->score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == 3 && field.wire == 0) {
      if (field.value < SpmPiece::kNormal || field.value > SpmPiece::kByte) return false;
      piece->type = static_cast<SpmPiece::Type>(field.value);
    }
  }
  return reader.ok();
}

bool ReadTrainer(absl::string_view bytes, Settings* settings, SpmModel* model) {
  WireReader reader(bytes);
  Field field;
  while (reader.Next(&field)) {
    if (field.wire != 0) continue;
    if (field.number == 3) settings->model_type = field.value;
    if (field.number == 24) settings->space_as_suffix = field.value != 0;
    if (field.number == 35) model->byte_fallback = field.value != 0;
  }
  return reader.ok();
}

bool ReadNormalizer(absl::string_view bytes, Settings* settings, SpmModel* model) {
  WireReader reader(bytes);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == 2 && field.wire == 2) settings->has_character_map = !field.bytes.empty();
    if (field.wire != 0) continue;
    if (field.number == 3) model->add_dummy_prefix = field.value != 0;
    if (field.number == 4) model->remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model->escape_whitespaces = field.value != 0;
  }
  return reader.ok();
}

absl::Status CheckPieces(absl::string_view what, SpmModel* model) {
  absl::flat_hash_set<absl::string_view> seen;
  int unknowns = 0, bytes = 0;
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    const SpmPiece& piece = model->pieces[id];
    const auto fail = [&](const char* why) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": piece ", id, ": ", why));
    };
    if (piece.text.empty() || piece.text.size() > kMaxPieceBytes)
      return fail("its length is not within [1, 512] bytes");
    if (!IsValidUtf8(piece.text)) return fail("is not UTF-8");
    if (!std::isfinite(piece.score)) return fail("its score is not finite");
    if (!seen.insert(piece.text).second) return fail("its text occurs twice");
    if (piece.type == SpmPiece::kUnknown) {
      model->unknown = static_cast<int32_t>(id);
      ++unknowns;
    }
    if (piece.type == SpmPiece::kByte) {
      if (!model->byte_fallback) return fail("byte piece in a model without byte fallback");
      int value = 0;
      while (value < 256 && piece.text != absl::StrFormat("<0x%02X>", value)) ++value;
      if (value == 256) return fail("a byte piece has the form <0xNN>");
      model->byte_ids[value] = static_cast<int32_t>(id);
      ++bytes;
    }
  }
  if (unknowns != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", unknowns, " unknown pieces, expected one"));
  }
  if (model->byte_fallback && bytes != 256) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", bytes, " byte pieces of 256"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SpmModel> ParseSpmModel(absl::string_view bytes, absl::string_view what) {
  SpmModel model;
  Settings settings;
  WireReader reader(bytes);
  Field field;
  bool ok = true;
  while (ok && reader.Next(&field)) {
    if (field.wire != 2) continue;
    if (field.number == 1) {
      if (model.pieces.size() == kMaxPieces) {
        return absl::InvalidArgumentError(absl::StrCat(what, ": over ", kMaxPieces, " pieces"));
      }
      ok = ReadPiece(field.bytes, &model.pieces.emplace_back());
    } else if (field.number == 2) {
      ok = ReadTrainer(field.bytes, &settings, &model);
    } else if (field.number == 3) {
      ok = ReadNormalizer(field.bytes, &settings, &model);
    }
  }
  if (!ok || !reader.ok()) {
    return absl::DataLossError(absl::StrCat(what, ": not a SentencePiece model"));
  }
  if (model.pieces.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": no pieces"));
  }
  if (settings.model_type != kModelTypeBpe) {
    return absl::UnimplementedError(absl::StrCat(
        what, ": SentencePiece model type ", settings.model_type, "; only BPE (2) is supported"));
  }
  if (settings.has_character_map) {
    return absl::UnimplementedError(
        absl::StrCat(what, ": the normalizer has a character map; only identity is supported"));
  }
  if (settings.space_as_suffix) {
    return absl::UnimplementedError(
        absl::StrCat(what, ": treat_whitespace_as_suffix is not supported"));
  }
  RETURN_IF_ERROR(CheckPieces(what, &model));
  return model;
}

}  // namespace tessera
