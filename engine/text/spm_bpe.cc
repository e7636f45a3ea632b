#include "engine/text/spm_bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "engine/text/utf8.h"

namespace tessera {
namespace {

// A part of the text that is one symbol now. A symbol that was merged into its left neighbor is
// empty.
struct Symbol {
  int32_t prev;
  int32_t next;
  absl::string_view text;
  bool frozen;  // user-defined: never merges
};

struct Merge {
  float score;
  int32_t left;
  int32_t right;
  size_t bytes;  // of the merged symbol; differs from the symbols' bytes once they have changed
};

struct MergesLater {
  bool operator()(const Merge& a, const Merge& b) const {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  }
};

}  // namespace

// The symbols of one text: a linked list whose neighbors merge, the best pair first.
class SpmBpe::Merger {
 public:
  // Splits the text into characters and user-defined pieces. REQUIRES: `normalized` is not empty.
  Merger(const SpmBpe& bpe, absl::string_view normalized);
  void MergeAll();
  // Appends the ids of the symbols, with unused pieces split again.
  void Emit(std::vector<int32_t>* out) const;

 private:
  // Adds the merge of two neighbors to the agenda if a piece has their text. -1: no neighbor.
  void Offer(int32_t left, int32_t right);

  const SpmBpe& bpe_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Merge, std::vector<Merge>, MergesLater> agenda_;
  absl::flat_hash_map<int32_t, size_t> split_at_;  // unused piece -> bytes of its left half
};

SpmBpe::Merger::Merger(const SpmBpe& bpe, absl::string_view normalized) : bpe_(bpe) {
  symbols_.reserve(normalized.size());
  for (absl::string_view rest = normalized; !rest.empty();) {
    size_t length = bpe_.MatchUserDefined(rest);
    const bool frozen = length > 0;
    if (!frozen) length = static_cast<size_t>(std::max(1, Utf8Length(rest)));
    const auto index = static_cast<int32_t>(symbols_.size());
    symbols_.push_back({index - 1, index + 1, rest.substr(0, length), frozen});
    rest.remove_prefix(length);
  }
  symbols_.back().next = -1;
  for (size_t i = 1; i < symbols_.size(); ++i) {
    Offer(static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }
}

void SpmBpe::Merger::Offer(int32_t left, int32_t right) {
  if (left < 0 || right < 0 || symbols_[left].frozen || symbols_[right].frozen) return;
  const absl::string_view merged(symbols_[left].text.data(),
                                 symbols_[left].text.size() + symbols_[right].text.size());
  const int32_t id = bpe_.FindPiece(merged);
  if (id < 0) return;
  const SpmPiece& piece = bpe_.model_->pieces[id];
  agenda_.push({piece.score, left, right, merged.size()});
  if (piece.type == SpmPiece::kUnused) split_at_[id] = symbols_[left].text.size();
}

void SpmBpe::Merger::MergeAll() {
  while (!agenda_.empty()) {
    const Merge top = agenda_.top();
    agenda_.pop();
    Symbol& left = symbols_[top.left];
    Symbol& right = symbols_[top.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != top.bytes) {
      continue;  // one of the two has merged with another symbol since
    }
    left.text = absl::string_view(left.text.data(), top.bytes);
    left.next = right.next;
    if (right.next >= 0) symbols_[right.next].prev = top.left;
    right.text = absl::string_view();
    Offer(left.prev, top.left);
    Offer(top.left, left.next);
  }
}

void SpmBpe::Merger::Emit(std::vector<int32_t>* out) const {
  std::vector<absl::string_view> stack;  // halves of unused pieces, the leftmost on top
  for (int32_t i = 0; i >= 0; i = symbols_[i].next) {
    stack.push_back(symbols_[i].text);
    while (!stack.empty()) {
      const absl::string_view text = stack.back();
      stack.pop_back();
      const int32_t id = bpe_.FindPiece(text);
      if (id < 0) {
        bpe_.EmitUnknown(text, out);
        continue;
      }
      const auto split = split_at_.find(id);
      if (split == split_at_.end()) {
        out->push_back(id);
        continue;
      }
      stack.push_back(text.substr(split->second));
      stack.push_back(text.substr(0, split->second));
    }
  }
}

SpmBpe::SpmBpe(const SpmModel* model) : model_(model) {
  std::set<size_t, std::greater<size_t>> lengths;
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    const SpmPiece& piece = model->pieces[id];
    const bool user_defined = piece.type == SpmPiece::kUserDefined;
    if (!user_defined && piece.type != SpmPiece::kNormal && piece.type != SpmPiece::kUnused) {
      continue;
    }
    ids_.emplace(piece.text, static_cast<int32_t>(id));
    longest_ = std::max(longest_, piece.text.size());
    if (user_defined) {
      lengths.insert(piece.text.size());
      user_defined_starts_.set(static_cast<uint8_t>(piece.text[0]));
    }
  }
  user_defined_lengths_.assign(lengths.begin(), lengths.end());
}

size_t SpmBpe::MatchUserDefined(absl::string_view text) const {
  if (!user_defined_starts_[static_cast<uint8_t>(text[0])]) return 0;
  for (size_t length : user_defined_lengths_) {
    if (length > text.size()) continue;
    const int32_t id = FindPiece(text.substr(0, length));
    if (id >= 0 && model_->pieces[id].type == SpmPiece::kUserDefined) return length;
  }
  return 0;
}

int32_t SpmBpe::FindPiece(absl::string_view text) const {
  if (text.size() > longest_) return -1;
  const auto it = ids_.find(text);
  return it == ids_.end() ? -1 : it->second;
}

std::string SpmBpe::Normalize(absl::string_view text, const Options& options) const {
  const std::string space = model_->escape_whitespaces ? kSpaceMark : " ";
  const bool squeeze = model_->remove_extra_whitespaces;
  std::string out;
  out.reserve(text.size() + text.size() / 4 + 8);
  if (squeeze && options.trim_front) {
    while (!text.empty() && text[0] == ' ' && MatchUserDefined(text) == 0) text.remove_prefix(1);
  }
  if (text.empty()) return out;
  if (options.add_prefix) out += space;
  bool after_space = squeeze && options.trim_front;
  while (!text.empty()) {
    absl::string_view unit;
    if (const size_t matched = MatchUserDefined(text); matched > 0) {
      unit = text.substr(0, matched);
      text.remove_prefix(matched);
    } else if (const int length = Utf8Length(text); length > 0) {
      unit = text.substr(0, length);
      text.remove_prefix(length);
    } else {
      unit = kReplacementCharacter;
      text.remove_prefix(1);
    }
    while (after_space && absl::ConsumePrefix(&unit, " ")) {
    }
    if (unit.empty()) continue;
    for (char c : unit) {
      if (c == ' ') {
        out += space;
      } else {
        out.push_back(c);
      }
    }
    after_space = squeeze && unit.back() == ' ';
  }
  while (squeeze && absl::EndsWith(out, space)) out.erase(out.size() - space.size());
  return out;
}

void SpmBpe::EmitUnknown(absl::string_view character, std::vector<int32_t>* out) const {
  if (model_->byte_fallback) {
    for (char c : character) out->push_back(model_->byte_ids[static_cast<uint8_t>(c)]);
  } else if (out->empty() || out->back() != model_->unknown) {
    out->push_back(model_->unknown);
  }
}

void SpmBpe::Encode(absl::string_view normalized, std::vector<int32_t>* out) const {
  if (normalized.empty()) return;
  Merger merger(*this, normalized);
  merger.MergeAll();
  merger.Emit(out);
}

}  // namespace tessera
