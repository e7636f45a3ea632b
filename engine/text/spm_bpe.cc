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

// A stretch of the text that is one symbol now; merged-away symbols are empty.
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
  size_t bytes;  // of the merged symbol; tells a stale entry
};

struct MergesLater {
  bool operator()(const Merge& a, const Merge& b) const {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  }
};

}  // namespace

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

void SpmBpe::EmitUnmerged(absl::string_view symbol, std::vector<int32_t>* out) const {
  if (model_->byte_fallback) {
    for (char c : symbol) out->push_back(model_->byte_ids[static_cast<uint8_t>(c)]);
  } else if (out->empty() || out->back() != model_->unknown) {
    out->push_back(model_->unknown);
  }
}

void SpmBpe::Encode(absl::string_view normalized, std::vector<int32_t>* out) const {
  if (normalized.empty()) return;
  std::vector<Symbol> symbols;
  symbols.reserve(normalized.size());
  for (absl::string_view rest = normalized; !rest.empty();) {
    size_t length = MatchUserDefined(rest);
    const bool frozen = length > 0;
    if (!frozen) length = static_cast<size_t>(std::max(1, Utf8Length(rest)));
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({index - 1, index + 1, rest.substr(0, length), frozen});
    rest.remove_prefix(length);
  }
  symbols.back().next = -1;

  std::priority_queue<Merge, std::vector<Merge>, MergesLater> agenda;
  absl::flat_hash_map<int32_t, size_t> split_at;  // unused piece -> bytes of its left half
  const auto offer = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
    const absl::string_view merged(symbols[left].text.data(),
                                   symbols[left].text.size() + symbols[right].text.size());
    const int32_t id = FindPiece(merged);
    if (id < 0) return;
    agenda.push({model_->pieces[id].score, left, right, merged.size()});
    if (model_->pieces[id].type == SpmPiece::kUnused) split_at[id] = symbols[left].text.size();
  };
  for (size_t i = 1; i < symbols.size(); ++i) {
    offer(static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }
  while (!agenda.empty()) {
    const Merge top = agenda.top();
    agenda.pop();
    Symbol& left = symbols[top.left];
    Symbol& right = symbols[top.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != top.bytes) {
      continue;
    }
    left.text = absl::string_view(left.text.data(), top.bytes);
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].prev = top.left;
    right.text = absl::string_view();
    offer(left.prev, top.left);
    offer(top.left, left.next);
  }

  std::vector<absl::string_view> stack;  // halves of unused pieces, the leftmost on top
  for (int32_t i = 0; i >= 0; i = symbols[i].next) {
    stack.push_back(symbols[i].text);
    while (!stack.empty()) {
      const absl::string_view text = stack.back();
      stack.pop_back();
      const int32_t id = FindPiece(text);
      if (id < 0) {
        EmitUnmerged(text, out);
        continue;
      }
      const auto split = split_at.find(id);
      if (split == split_at.end()) {
        out->push_back(id);
        continue;
      }
      stack.push_back(text.substr(split->second));
      stack.push_back(text.substr(0, split->second));
    }
  }
}

}  // namespace tessera
