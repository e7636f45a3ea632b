#include "client/cli/options.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/base.h"

namespace tessera::client {
namespace {

using absl::InvalidArgumentError;

constexpr int kColumns = 100;  // of the help page
constexpr int kIndent = 32;    // of its right column

template <class T>
absl::Status CheckRange(absl::string_view text, const Range<T>& range, double value) {
  if (value >= range.min && value <= range.max) return absl::OkStatus();
  return InvalidArgumentError(
      absl::StrCat(text, " is not between ", range.min, " and ", range.max));
}

// Breaks `text` at spaces so that each line fits, and indents the later lines.
std::string Wrap(absl::string_view text, int indent) {
  std::string out;
  int column = indent;
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    const int length = static_cast<int>(word.size());
    if (column > indent && column + 1 + length > kColumns) {
      absl::StrAppend(&out, "\n", std::string(indent, ' '));
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    absl::StrAppend(&out, word);
    column += length;
  }
  return out;
}

// Returns one entry of the help page: the left column, then the wrapped right one.
std::string HelpEntry(std::string left, absl::string_view right) {
  if (static_cast<int>(left.size()) >= kIndent - 1) {
    absl::StrAppend(&left, "\n", std::string(kIndent, ' '));
  } else {
    left.resize(kIndent, ' ');
  }
  return absl::StrCat(left, Wrap(right, kIndent), "\n");
}

}  // namespace

absl::Status ParseNumber(absl::string_view text, const Range<int>& range, int* out) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) {
    return InvalidArgumentError(absl::StrCat("\"", text, "\" is not a whole number"));
  }
  RETURN_IF_ERROR(CheckRange(text, range, static_cast<double>(value)));
  *out = static_cast<int>(value);
  return absl::OkStatus();
}

absl::Status ParseNumber(absl::string_view text, const Range<double>& range, double* out) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
    return InvalidArgumentError(absl::StrCat("\"", text, "\" is not a finite number"));
  }
  RETURN_IF_ERROR(CheckRange(text, range, value));
  *out = value;
  return absl::OkStatus();
}

Options::Options(absl::string_view command, absl::string_view summary)
    : command_(command), summary_(summary) {}

void Options::AddParsed(absl::string_view name, absl::string_view value_name, Take take,
                        absl::string_view help) {
  options_.push_back(
      {std::string(name), std::string(value_name), std::string(help), "", std::move(take)});
}

void Options::AddEach(absl::string_view name, absl::string_view value_name, Take take,
                      absl::string_view help) {
  AddParsed(name, value_name, std::move(take), help);
  options_.back().repeatable = true;
}

void Options::Add(absl::string_view name, bool* out, absl::string_view help) {
  AddParsed(
      name, "",
      [out](absl::string_view text) {
        if (text != "true" && text != "false") {
          return InvalidArgumentError(absl::StrCat("\"", text, "\" is neither true nor false"));
        }
        *out = text == "true";
        return absl::OkStatus();
      },
      help);
}

void Options::Add(absl::string_view name, std::optional<uint64_t>* out, absl::string_view help) {
  AddParsed(
      name, "N",
      [out](absl::string_view text) -> absl::Status {
        if (absl::SimpleAtoi(text, &out->emplace())) return absl::OkStatus();
        return InvalidArgumentError(
            absl::StrCat("\"", text, "\" is not a whole number from 0 to 2^64-1"));
      },
      help);
}

void Options::Add(absl::string_view name, absl::Duration* out, absl::string_view help) {
  AddParsed(
      name, "TIME",
      [out](absl::string_view text) {
        absl::Duration value;
        if (!absl::ParseDuration(text, &value) || value == absl::InfiniteDuration() ||
            value < absl::ZeroDuration()) {
          return InvalidArgumentError(
              absl::StrCat("\"", text, "\" is not a time such as 500ms, 30s or 1.5m"));
        }
        *out = value;
        return absl::OkStatus();
      },
      help);
  if (*out > absl::ZeroDuration()) options_.back().default_text = absl::FormatDuration(*out);
}

void Options::AddArgument(absl::string_view value_name, std::string* out, absl::string_view help) {
  argument_ =
      Option{std::string(value_name), "", std::string(help), "", [out](absl::string_view text) {
               *out = std::string(text);
               return absl::OkStatus();
             }};
}

absl::Status Options::Set(const Option& option, absl::string_view value) {
  if (!given_.insert(option.name).second && !option.repeatable) {
    return InvalidArgumentError(absl::StrCat("--", option.name, " is given twice"));
  }
  const absl::Status status = option.take(value);
  if (status.ok()) return status;
  return InvalidArgumentError(absl::StrCat("--", option.name, ": ", status.message()));
}

absl::Status Options::Parse(const Args& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    absl::string_view text = args[i];
    if (text == "--help" || text == "-h") {
      help_requested_ = true;
      return absl::OkStatus();
    }
    if (text.substr(0, 2) != "--" || text.size() == 2) {
      if (argument_ && given_.insert(argument_->name).second) {
        RETURN_IF_ERROR(argument_->take(text));
        continue;
      }
      return InvalidArgumentError(absl::StrCat("unexpected argument \"", text, "\""));
    }
    text.remove_prefix(2);
    const size_t equals = text.find('=');
    const absl::string_view name = text.substr(0, equals);
    const auto option = std::find_if(options_.begin(), options_.end(),
                                     [&](const Option& o) { return o.name == name; });
    if (option == options_.end()) {
      return InvalidArgumentError(absl::StrCat("unknown option --", name));
    }
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = text.substr(equals + 1);
    } else if (option->value_name.empty()) {
      value = "true";
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
    }
    RETURN_IF_ERROR(Set(*option, value));
  }
  return absl::OkStatus();
}

std::optional<int> Options::ParseOrExit(const Args& args, const Io& io) {
  const absl::Status status = Parse(args);
  if (!status.ok()) return UsageError(status, io);
  if (!help_requested_) return std::nullopt;
  *io.out << Help();
  return kExitOk;
}

int Options::UsageError(const absl::Status& status, const Io& io) const {
  *io.err << "tessera " << command_ << ": " << status.message() << "\nSee `tessera " << command_
          << " --help`.\n";
  return kExitUsage;
}

std::string Options::Help() const {
  std::string out = absl::StrCat("usage: tessera ", command_, " [options]",
                                 argument_ ? absl::StrCat(" ", argument_->name) : "", "\n\n");
  for (absl::string_view paragraph : absl::StrSplit(summary_, '\n')) {
    absl::StrAppend(&out, Wrap(paragraph, 0), "\n");
  }
  if (argument_) {
    absl::StrAppend(&out, "\n", HelpEntry(absl::StrCat("  ", argument_->name), argument_->help));
  }
  out += "\noptions:\n";
  for (const Option& option : options_) {
    std::string left = absl::StrCat("  --", option.name);
    if (!option.value_name.empty()) absl::StrAppend(&left, " ", option.value_name);
    std::string right = option.help;
    if (option.repeatable) right += " (repeatable)";
    if (!option.default_text.empty()) {
      absl::StrAppend(&right, " (default ", option.default_text, ")");
    }
    absl::StrAppend(&out, HelpEntry(std::move(left), right));
  }
  return out;
}

}  // namespace tessera::client
