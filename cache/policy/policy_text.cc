#include "cache/policy/policy_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/base.h"

namespace tessera {
namespace {

std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text), "'");
}

std::string NumberText(const ParameterSpec& spec, double value) {
  char buffer[32];
  const auto end = spec.kind == ParameterSpec::Kind::kInteger
                       ? std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(value))
                       : std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end.ptr);
}

std::string ValueText(const ParameterSpec& spec, double value) {
  if (spec.kind != ParameterSpec::Kind::kChoice) return NumberText(spec, value);
  const std::vector<std::string> choices = absl::StrSplit(spec.choices, '|');
  return choices[static_cast<size_t>(value)];
}

// Returns the Levenshtein distance, computed row by row.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

bool IsNameStart(char c) { return absl::ascii_islower(c); }
bool IsName(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_'; }
bool IsValue(char c) {
  return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '+' || c == '-';
}

class Reader {
 public:
  explicit Reader(absl::string_view text) : text_(text) { SkipBlanks(); }

  absl::StatusOr<std::vector<PolicyStage>> Read() {
    std::vector<PolicyStage> stages;
    do {
      PolicyStage stage;
      RETURN_IF_ERROR(ReadName("a policy name", &stage.name));
      if (Take('(') && !Take(')')) {
        do {
          auto& [name, value] = stage.arguments.emplace_back();
          RETURN_IF_ERROR(ReadName("a parameter name", &name));
          if (!Take('=')) return Expected("'='");
          RETURN_IF_ERROR(ReadWord("a value", IsValue, &value));
        } while (Take(','));
        if (!Take(')')) return Expected("',' or ')'");
      }
      stages.push_back(std::move(stage));
    } while (Take('+'));
    if (at_ < text_.size()) return Expected("'+' or the end");
    return stages;
  }

 private:
  void SkipBlanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool Take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    SkipBlanks();
    return true;
  }
  absl::Status ReadName(absl::string_view what, std::string* out) {
    if (at_ == text_.size() || !IsNameStart(text_[at_])) return Expected(what);
    return ReadWord(what, IsName, out);
  }
  absl::Status ReadWord(absl::string_view what, bool (*accept)(char), std::string* out) {
    const size_t begin = at_;
    while (at_ < text_.size() && accept(text_[at_])) ++at_;
    if (at_ == begin) return Expected(what);
    *out = std::string(text_.substr(begin, at_ - begin));
    SkipBlanks();
    return absl::OkStatus();
  }
  absl::Status Expected(absl::string_view what) const {
    const std::string found = at_ == text_.size() ? "the end" : Quoted(text_.substr(at_, 1));
    return absl::InvalidArgumentError(absl::StrCat("kv policy ", Quoted(text_), ": expected ", what,
                                                   " at byte ", at_, ", found ", found));
  }

  absl::string_view text_;
  size_t at_ = 0;
};

// Returns the number or the choice's index that `text` names.
absl::StatusOr<double> ParseValue(const ParameterSpec& spec, absl::string_view text) {
  if (spec.kind == ParameterSpec::Kind::kChoice) {
    const std::vector<absl::string_view> choices = absl::StrSplit(spec.choices, '|');
    const auto it = std::find(choices.begin(), choices.end(), text);
    if (it == choices.end()) {
      return absl::InvalidArgumentError(UnknownName("value", text, choices));
    }
    return static_cast<double>(it - choices.begin());
  }
  const bool integer = spec.kind == ParameterSpec::Kind::kInteger;
  double value = 0;
  std::from_chars_result end;
  if (integer) {
    int64_t whole = 0;
    end = std::from_chars(text.data(), text.data() + text.size(), whole);
    value = static_cast<double>(whole);
  } else {
    end = std::from_chars(text.data(), text.data() + text.size(), value);
  }
  if (end.ec == std::errc::invalid_argument || end.ptr != text.data() + text.size() ||
      std::isnan(value)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(text), integer ? " is not an integer" : " is not a number"));
  }
  if (end.ec == std::errc::result_out_of_range || value < spec.min || value > spec.max) {
    return absl::InvalidArgumentError(absl::StrCat(
        text, " is outside [", NumberText(spec, spec.min), ", ", NumberText(spec, spec.max), "]"));
  }
  return value;
}

}  // namespace

absl::StatusOr<std::vector<PolicyStage>> ParsePolicyText(absl::string_view text) {
  if (text.size() > kMaxPolicyTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("kv policy: text of ", text.size(),
                                                   " bytes, the limit is ", kMaxPolicyTextBytes));
  }
  return Reader(text).Read();
}

PolicyArguments::PolicyArguments(absl::Span<const ParameterSpec> specs)
    : specs_(specs), given_(specs.size()) {
  for (const ParameterSpec& spec : specs) values_.push_back(spec.default_value);
}

absl::StatusOr<PolicyArguments> PolicyArguments::Bind(const PolicyStage& stage,
                                                      absl::Span<const ParameterSpec> specs) {
  const std::string prefix = absl::StrCat("kv policy '", stage.name, "': ");
  PolicyArguments bound(specs);
  for (const auto& [name, text] : stage.arguments) {
    const auto spec =
        std::find_if(specs.begin(), specs.end(),
                     [&name = name](const ParameterSpec& s) { return name == s.name; });
    if (spec == specs.end()) {
      std::vector<absl::string_view> known;
      for (const ParameterSpec& s : specs) known.emplace_back(s.name);
      return absl::InvalidArgumentError(prefix + UnknownName("parameter", name, known));
    }
    const size_t i = spec - specs.begin();
    if (bound.given_[i]) {
      return absl::InvalidArgumentError(
          absl::StrCat(prefix, "parameter '", name, "' is given twice"));
    }
    const absl::StatusOr<double> value = ParseValue(*spec, text);
    if (!value.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(prefix, "parameter '", name, "': ", value.status().message()));
    }
    bound.given_[i] = true;
    bound.values_[i] = *value;
  }
  return bound;
}

size_t PolicyArguments::IndexOf(absl::string_view name, ParameterSpec::Kind kind) const {
  size_t i = 0;
  while (i < specs_.size() && name != specs_[i].name) ++i;
  TESSERA_CHECK(i < specs_.size() && specs_[i].kind == kind);
  return i;
}

int64_t PolicyArguments::Integer(absl::string_view name) const {
  return static_cast<int64_t>(values_[IndexOf(name, ParameterSpec::Kind::kInteger)]);
}

double PolicyArguments::Real(absl::string_view name) const {
  return values_[IndexOf(name, ParameterSpec::Kind::kReal)];
}

absl::string_view PolicyArguments::Choice(absl::string_view name) const {
  const size_t i = IndexOf(name, ParameterSpec::Kind::kChoice);
  const std::vector<absl::string_view> choices = absl::StrSplit(specs_[i].choices, '|');
  return choices[static_cast<size_t>(values_[i])];
}

bool PolicyArguments::Given(absl::string_view name) const {
  size_t i = 0;
  while (i < specs_.size() && name != specs_[i].name) ++i;
  TESSERA_CHECK(i < specs_.size());
  return given_[i];
}

std::string PolicyArguments::Canonical(absl::string_view policy) const {
  std::vector<std::string> parts;
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (values_[i] == specs_[i].default_value) continue;
    parts.push_back(absl::StrCat(specs_[i].name, "=", ValueText(specs_[i], values_[i])));
  }
  if (parts.empty()) return std::string(policy);
  return absl::StrCat(policy, "(", absl::StrJoin(parts, ", "), ")");
}

std::string DescribeParameters(absl::Span<const ParameterSpec> specs) {
  return absl::StrJoin(specs, ", ", [](std::string* out, const ParameterSpec& spec) {
    absl::StrAppend(out, spec.name, "=", ValueText(spec, spec.default_value));
  });
}

std::string UnknownName(absl::string_view what, absl::string_view name,
                        absl::Span<const absl::string_view> known) {
  std::string message = absl::StrCat("unknown ", what, " ", Quoted(name));
  absl::string_view nearest;
  size_t best = name.size() / 2 + 1;
  for (absl::string_view candidate : known) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  if (!nearest.empty()) absl::StrAppend(&message, "; did you mean '", nearest, "'?");
  absl::StrAppend(&message, nearest.empty() ? "; " : " ");
  if (known.empty()) return absl::StrCat(message, "there are none");
  return absl::StrCat(message, "known: ", absl::StrJoin(known, ", "));
}

}  // namespace tessera
