// The daemon's log: one line for each event, as JSON or text, to standard error or a file.
//
// A line has a time (UTC), a level, a message and fields. Everything is escaped, so no request can
// forge a line. Callers never pass prompts, images or answers.
// Threads: safe. Errors: Open says why a file cannot be written. Later write errors go to standard
// error and never stop the daemon.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kJson, kText };

struct LogOptions {
  LogFormat format = LogFormat::kJson;
  LogLevel level = LogLevel::kInfo;
  std::string file;  // empty: standard error
};

// One named value of a line. It holds views: construct it inside the call to Write.
class LogField {
 public:
  LogField(absl::string_view key, absl::string_view value) : key_(key), text_(value) {}
  LogField(absl::string_view key, const char* value) : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const std::string& value)
      : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, bool value)
      : key_(key), text_(value ? "true" : "false"), quoted_(false) {}
  LogField(absl::string_view key, int value) : LogField(key, static_cast<int64_t>(value)) {}
  LogField(absl::string_view key, int64_t value);
  LogField(absl::string_view key, double value);  // not finite: JSON's null

  // Appends `"key":value` (JSON) or `key=value` (text).
  void AppendTo(LogFormat format, std::string* line) const;

 private:
  absl::string_view key_;
  absl::string_view text_;  // used when number_ is empty
  std::string number_;
  bool quoted_ = true;
};

class Logger {
 public:
  // Opens the log. FAILED_PRECONDITION with the file and the system's reason.
  static absl::StatusOr<std::unique_ptr<Logger>> Open(const LogOptions& options);
  virtual ~Logger() = default;

  virtual bool Enabled(LogLevel level) const = 0;
  virtual void Write(LogLevel level, absl::string_view message,
                     std::initializer_list<LogField> fields = {}) = 0;
};

// Returns `text` for the inside of a JSON string: quotes, backslashes and control characters are
// escaped, and bytes that are not UTF-8 become U+FFFD.
std::string EscapeJson(absl::string_view text);

// Returns a line without its time, level and line end. Exposed for tests.
std::string FormatLogBody(LogFormat format, absl::string_view message,
                          std::initializer_list<LogField> fields);

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name);    // debug, info, warning, error
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view name);  // json, text

}  // namespace tessera
