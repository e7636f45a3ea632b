// Options of one command: `--name value` or `--name=value`, checked for type and range, with a help
// page made from the same entries. Abseil's flags are global to a program, and each command here
// has options of its own, some of them ordered (an image belongs to the message that follows it).
//
// Threads: one. Targets are not owned and must outlive Parse.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cli/io.h"

namespace tessera::client {

template <class T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};

// Strict conversions: the whole text, finite numbers only, inside the range.
absl::Status ParseValue(absl::string_view text, const Range<int64_t>& range, int64_t* out);
absl::Status ParseValue(absl::string_view text, const Range<double>& range, double* out);

class Options {
 public:
  // `usage` follows "tessera <command> " on the help page; `summary` is prose.
  Options(absl::string_view command, absl::string_view summary);

  void Add(absl::string_view name, bool* out, absl::string_view help);
  void Add(absl::string_view name, int* out, Range<int> range, absl::string_view help);
  void Add(absl::string_view name, std::optional<int>* out, Range<int> range,
           absl::string_view help);
  void Add(absl::string_view name, double* out, Range<double> range, absl::string_view help);
  void Add(absl::string_view name, std::optional<double>* out, Range<double> range,
           absl::string_view help);
  void Add(absl::string_view name, std::optional<uint64_t>* out, absl::string_view help);
  void Add(absl::string_view name, absl::string_view value_name, std::string* out,
           absl::string_view help);
  void Add(absl::string_view name, absl::string_view value_name, std::optional<std::string>* out,
           absl::string_view help);
  // "30s", "1.5m"; not negative; 0 is off where the help says so.
  void Add(absl::string_view name, absl::Duration* out, absl::string_view help);
  // Any other kind of value: `take` says what is wrong with it.
  void AddParsed(absl::string_view name, absl::string_view value_name,
                 std::function<absl::Status(absl::string_view)> take, absl::string_view help);
  // The one argument that is no option; first on the help page. REQUIRES: called at most once.
  void AddArgument(absl::string_view value_name, std::string* out, absl::string_view help);
  // Repeatable; called once an occurrence, in the order of the command line.
  void AddEach(absl::string_view name, absl::string_view value_name,
               std::function<absl::Status(absl::string_view)> take, absl::string_view help);

  // INVALID_ARGUMENT that names the option. --help and -h stop the parse with OK.
  absl::Status Parse(const Args& args);
  // Parse, then either nullopt (go on) or the exit code: help was printed, or a usage error.
  std::optional<int> ParseOrExit(const Args& args, const Io& io);
  // Prints what is wrong with the command line and returns kExitUsage.
  int UsageError(const absl::Status& status, const Io& io) const;

  std::string Help() const;
  bool help_requested() const { return help_requested_; }
  bool given(absl::string_view name) const;

 private:
  struct Option {
    std::string name, value_name, help, default_text;
    bool repeatable = false;
    std::function<absl::Status(absl::string_view)> take;
  };
  void Insert(absl::string_view name, absl::string_view value_name, absl::string_view help,
              std::string default_text, std::function<absl::Status(absl::string_view)> take);
  absl::Status Take(const Option& option, absl::string_view value);

  std::string command_, summary_;
  std::vector<Option> options_;
  std::optional<Option> argument_;
  std::set<std::string> given_;
  bool help_requested_ = false;
};

}  // namespace tessera::client
