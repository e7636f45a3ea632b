// Options of one command: `--name value` or `--name=value`, checked for type and range, with a help
// page made from the same entries.
//
// No library fits. Abseil's flags are global to a program, but each command here has options of its
// own, and some of them are ordered: an image belongs to the message after it. CLI11 2.1 (Debian
// 12) takes the next argument as the value of `--text=`, splits a text such as "[a,b]" at its
// commas, and does not wrap the help page.
//
// Threads: one. Targets are not owned and must outlive Parse.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "client/cli/io.h"

namespace tessera::client {

template <class T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};

// Parses the whole text as a finite number inside the range, else returns INVALID_ARGUMENT.
absl::Status ParseNumber(absl::string_view text, const Range<int>& range, int* out);
absl::Status ParseNumber(absl::string_view text, const Range<double>& range, double* out);

class Options {
 public:
  using Take = std::function<absl::Status(absl::string_view value)>;

  // `command` is the part of the usage line after "tessera"; `summary` is prose for the help page.
  Options(absl::string_view command, absl::string_view summary);

  // Adds an option that sets `*out`. The help page shows the value that `*out` has now.
  void Add(absl::string_view name, bool* out, absl::string_view help);
  // `Out` is T or std::optional<T>, where T is int or double.
  template <class T, class Out>
  void Add(absl::string_view name, Out* out, Range<T> range, absl::string_view help);
  void Add(absl::string_view name, std::optional<uint64_t>* out, absl::string_view help);
  // `Out` is std::string or std::optional<std::string>.
  template <class Out>
  void Add(absl::string_view name, absl::string_view value_name, Out* out, absl::string_view help);
  // A duration such as "30s" or "1.5m", not negative. `help` says if 0 means "no limit".
  void Add(absl::string_view name, absl::Duration* out, absl::string_view help);
  // Adds an option for any other kind of value. `take` returns what is wrong with the value.
  void AddParsed(absl::string_view name, absl::string_view value_name, Take take,
                 absl::string_view help);
  // Adds an option that may be given several times. Calls `take` for each, in the order of the
  // command line.
  void AddEach(absl::string_view name, absl::string_view value_name, Take take,
               absl::string_view help);
  // Adds the one positional argument. REQUIRES: called at most once.
  void AddArgument(absl::string_view value_name, std::string* out, absl::string_view help);

  // Sets the targets. INVALID_ARGUMENT names the option. Stops with OK at --help or -h.
  absl::Status Parse(const Args& args);
  // Parses. Returns nullopt, or the exit code after it has printed the help page or a usage error.
  std::optional<int> ParseOrExit(const Args& args, const Io& io);
  // Prints a usage error and returns kExitUsage.
  int UsageError(const absl::Status& status, const Io& io) const;

  std::string Help() const;
  bool help_requested() const { return help_requested_; }
  // Returns whether the command line set this option.
  bool given(absl::string_view name) const { return given_.count(std::string(name)) > 0; }

 private:
  struct Option {
    std::string name, value_name, help, default_text;
    Take take;
    bool repeatable = false;
  };
  absl::Status Set(const Option& option, absl::string_view value);

  std::string command_, summary_;
  std::vector<Option> options_;
  std::optional<Option> argument_;
  std::set<std::string> given_;
  bool help_requested_ = false;
};

template <class T, class Out>
void Options::Add(absl::string_view name, Out* out, Range<T> range, absl::string_view help) {
  AddParsed(
      name, std::is_same_v<T, int> ? "N" : "X",
      [out, range](absl::string_view text) -> absl::Status {
        T value;
        RETURN_IF_ERROR(ParseNumber(text, range, &value));
        *out = value;
        return absl::OkStatus();
      },
      help);
  if constexpr (std::is_same_v<T, Out>) options_.back().default_text = absl::StrCat(*out);
}

template <class Out>
void Options::Add(absl::string_view name, absl::string_view value_name, Out* out,
                  absl::string_view help) {
  AddParsed(
      name, value_name,
      [out](absl::string_view text) {
        *out = std::string(text);
        return absl::OkStatus();
      },
      help);
  if constexpr (std::is_same_v<Out, std::string>) options_.back().default_text = *out;
}

}  // namespace tessera::client
