#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/read_file.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

absl::Status Wrong(absl::string_view what, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(what, what.empty() ? "" : ": ", why));
}

absl::Status Wrong(absl::string_view what, const char* key, absl::string_view why) {
  return Wrong(what, absl::StrCat(key, ": ", why));
}

// Takes long plain strings out of the text before the parser sees it.
//
// nlohmann-json reads strings a byte at a time at 9 ns each, which is milliseconds for a picture in
// base64. So the plain beginning of each long string is cut out of the text, and put back when the
// parser hands over that string. Strings are identified by counting: the parser reports them in the
// order of the text, and up to the first syntax error both agree where each begins and ends.
struct CutText {
  static constexpr size_t kLong = 1024;

  struct Cut {
    int64_t number = 0;         // the string's index in the order of the text
    absl::string_view content;  // the bytes that were cut
    size_t position = 0;        // where `content` stood in `text`, after the opening quote
  };
  std::string text;  // the text without the cuts; empty if nothing was cut
  std::vector<Cut> cuts;

  // `cuts` hold views into `whole`.
  explicit CutText(absl::string_view whole);
  // Returns the position in the whole text of a byte of `text`.
  size_t Position(size_t cut_position) const {
    size_t position = cut_position;
    for (const Cut& cut : cuts) {
      if (cut.position < cut_position) position += cut.content.size();
    }
    return position;
  }
};

// Returns how many bytes of a string's content are printable ASCII without quotes and backslashes,
// rounded down to blocks. Blocks let the compiler test 16 bytes at a time.
size_t PlainBytes(absl::string_view text) {
  constexpr size_t kBlock = 64;
  size_t n = 0;
  while (n + kBlock <= text.size()) {
    unsigned char special = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      const unsigned char c = text[n + i];
      special |= (c < 0x20) | (c >= 0x80) | (c == '"') | (c == '\\');
    }
    if (special != 0) break;
    n += kBlock;
  }
  return n;
}

CutText::CutText(absl::string_view whole) {
  size_t kept = 0;  // `whole` up to here is in `text` or in `cuts`
  int64_t number = 0;
  for (size_t begin = whole.find('"'); begin != absl::string_view::npos; ++number) {
    ++begin;
    const size_t plain = PlainBytes(whole.substr(begin));
    size_t end = whole.find_first_of("\"\\", begin + plain);
    if (plain >= kLong) {
      absl::StrAppend(&text, whole.substr(kept, begin - kept));
      cuts.push_back({number, whole.substr(begin, plain), text.size()});
      kept = begin + plain;
    }
    while (end != absl::string_view::npos && whole[end] == '\\')
      end = whole.find_first_of("\"\\", end + 2);
    begin = end == absl::string_view::npos ? end : whole.find('"', end + 1);
  }
  if (!cuts.empty()) absl::StrAppend(&text, whole.substr(kept));
}

// Builds the document value by value and stops at the first broken limit.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(absl::string_view what, const JsonLimits& limits, const CutText& cut)
      : what_(what), limits_(limits), cut_(cut) {}

  bool null() override { return Put(Json(nullptr)) != nullptr; }
  bool boolean(bool v) override { return Put(Json(v)) != nullptr; }
  bool number_integer(number_integer_t v) override { return Put(Json(v)) != nullptr; }
  bool number_unsigned(number_unsigned_t v) override { return Put(Json(v)) != nullptr; }
  bool number_float(number_float_t v, const string_t& text) override {
    if (!std::isfinite(v)) return Fail(absl::StrCat("number out of range: ", text.substr(0, 32)));
    return Put(Json(v)) != nullptr;
  }
  bool string(string_t& v) override {
    PutBack(&v);
    return Put(Json(std::move(v))) != nullptr;
  }
  bool binary(binary_t&) override { return Fail("binary value"); }

  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    PutBack(&name);
    Json& object = *open_.back();
    if (object.contains(name)) {
      return Fail(absl::StrCat("duplicate key \"", name.substr(0, 64), "\""));
    }
    slot_ = &object[std::move(name)];
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("not valid JSON at byte ", cut_.Position(position)));
  }

  absl::Status status() const { return status_; }
  Json Take() { return std::move(root_); }

 private:
  // Restores the beginning of the string that was just read, if it was cut.
  void PutBack(string_t* value) {
    if (next_cut_ < cut_.cuts.size() && cut_.cuts[next_cut_].number == strings_) {
      const absl::string_view content = cut_.cuts[next_cut_++].content;
      value->insert(0, content.data(), content.size());
    }
    ++strings_;
  }

  bool Fail(const std::string& why) {
    status_ = Wrong(what_, why);
    return false;
  }

  // Stores a value and returns its place, or null when a limit is broken. Open containers never
  // move: only the innermost one grows, and at that time nothing inside it is open.
  Json* Put(Json value) {
    if (++values_ > limits_.max_values) {
      Fail(absl::StrCat("more than ", limits_.max_values, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }

  bool Open(Json container) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return Fail(absl::StrCat("nested deeper than ", limits_.max_depth));
    }
    Json* place = Put(std::move(container));
    if (place == nullptr) return false;
    open_.push_back(place);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  absl::string_view what_;
  JsonLimits limits_;
  const CutText& cut_;
  int64_t strings_ = 0;  // read so far
  size_t next_cut_ = 0;
  Json root_;
  std::vector<Json*> open_;
  Json* slot_ = nullptr;
  int64_t values_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what,
                               const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return Wrong(what, absl::StrCat(text.size(), " bytes, more than ", limits.max_bytes));
  }
  const CutText cut(text);
  if (!cut.cuts.empty()) text = cut.text;
  Builder builder(what, limits, cut);
  const bool parsed = Json::sax_parse(text.data(), text.data() + text.size(), &builder);
  RETURN_IF_ERROR(builder.status());
  if (!parsed) return Wrong(what, "not valid JSON");
  return builder.Take();
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits.max_bytes));
  return ParseJson(text, path, limits);
}

const Json* FindMember(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::Status GetInt(const Json& object, absl::string_view what, const char* key, int64_t min,
                    int64_t max, int* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) return Wrong(what, key, "not an integer");
  const bool huge =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t v = huge ? INT64_MAX : value->get<int64_t>();
  if (v < min || v > max || v < INT32_MIN || v > INT32_MAX) {
    return Wrong(what, key, absl::StrCat(value->dump(), " is outside ", min, "..", max));
  }
  *out = static_cast<int>(v);
  return absl::OkStatus();
}

absl::Status GetUint64(const Json& object, absl::string_view what, const char* key, uint64_t* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_unsigned()) {
    return Wrong(what, key, "not an integer from 0 to 2^64-1");
  }
  *out = value->get<uint64_t>();
  return absl::OkStatus();
}

absl::Status GetDouble(const Json& object, absl::string_view what, const char* key, double min,
                       double max, double* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return Wrong(what, key, "not a number");
  const double v = value->get<double>();
  if (!(v >= min && v <= max)) {
    return Wrong(what, key, absl::StrCat(v, " is outside ", min, "..", max));
  }
  *out = v;
  return absl::OkStatus();
}

absl::Status GetFloat(const Json& object, absl::string_view what, const char* key, double min,
                      double max, float* out) {
  double value = double{*out};
  RETURN_IF_ERROR(GetDouble(object, what, key, min, max, &value));
  *out = static_cast<float>(value);
  return absl::OkStatus();
}

absl::Status GetBool(const Json& object, absl::string_view what, const char* key, bool* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return Wrong(what, key, "not true or false");
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status GetString(const Json& object, absl::string_view what, const char* key,
                       std::string* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return Wrong(what, key, "not a string");
  *out = value->get<std::string>();
  return absl::OkStatus();
}

absl::Status GetStrings(const Json& object, absl::string_view what, const char* key,
                        std::vector<std::string>* out) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return absl::OkStatus();
  const bool good =
      value->is_array() &&
      std::all_of(value->begin(), value->end(), [](const Json& item) { return item.is_string(); });
  if (!good) return Wrong(what, key, "not a list of strings");
  *out = value->get<std::vector<std::string>>();
  return absl::OkStatus();
}

}  // namespace tessera
