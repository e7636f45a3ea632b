// Only this file includes spdlog, which is header-only and takes ten seconds to compile.
#include "server/observability/log.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/utf8.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace tessera {
namespace {

// The body is escaped already, so the pattern may paste it (%v) into the JSON object.
constexpr const char* kJsonPattern = R"({"ts":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l",%v})";
constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%eZ %-7l %v";

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

class SpdlogLogger final : public Logger {
 public:
  SpdlogLogger(const LogOptions& options, spdlog::sink_ptr sink)
      : format_(options.format), logger_("tesserad", std::move(sink)) {
    logger_.set_pattern(format_ == LogFormat::kJson ? kJsonPattern : kTextPattern,
                        spdlog::pattern_time_type::utc);
    logger_.set_level(SpdlogLevel(options.level));
    logger_.flush_on(spdlog::level::info);
  }

  bool Enabled(LogLevel level) const override { return logger_.should_log(SpdlogLevel(level)); }

  void Write(LogLevel level, absl::string_view message,
             std::initializer_list<LogField> fields) override {
    if (!Enabled(level)) return;
    const std::string body = FormatLogBody(format_, message, fields);
    logger_.log(SpdlogLevel(level), spdlog::string_view_t(body.data(), body.size()));
  }

 private:
  LogFormat format_;
  spdlog::logger logger_;
};

}  // namespace

LogField::LogField(absl::string_view key, int64_t value)
    : key_(key), number_(absl::StrCat(value)), quoted_(false) {}

LogField::LogField(absl::string_view key, double value)
    : key_(key),
      number_(std::isfinite(value) ? absl::StrFormat("%.6g", value) : "null"),
      quoted_(false) {}

void LogField::AppendTo(LogFormat format, std::string* line) const {
  const absl::string_view value = number_.empty() ? text_ : absl::string_view(number_);
  if (format == LogFormat::kJson) {
    const char* quote = quoted_ ? "\"" : "";
    absl::StrAppend(line, "\"", EscapeJson(key_), "\":", quote, EscapeJson(value), quote);
    return;
  }
  const bool plain = value.find_first_of(" =\"") == absl::string_view::npos && !value.empty();
  const char* quote = plain ? "" : "\"";
  absl::StrAppend(line, key_, "=", quote, EscapeJson(value), quote);
}

std::string EscapeJson(absl::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  while (!text.empty()) {
    const int length = Utf8Length(text);
    const unsigned char c = static_cast<unsigned char>(text[0]);
    if (length <= 0) {
      out += kReplacementCharacter;
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      absl::StrAppendFormat(&out, "\\u%04x", c);
    } else {
      out.append(text.data(), length);
    }
    text.remove_prefix(length <= 0 ? 1 : length);
  }
  return out;
}

std::string FormatLogBody(LogFormat format, absl::string_view message,
                          std::initializer_list<LogField> fields) {
  const bool json = format == LogFormat::kJson;
  std::string body =
      json ? absl::StrCat("\"msg\":\"", EscapeJson(message), "\"") : EscapeJson(message);
  for (const LogField& field : fields) {
    body += json ? "," : " ";
    field.AppendTo(format, &body);
  }
  return body;
}

absl::StatusOr<std::unique_ptr<Logger>> Logger::Open(const LogOptions& options) {
  if (options.file.empty()) {
    return std::make_unique<SpdlogLogger>(options,
                                          std::make_shared<spdlog::sinks::stderr_sink_mt>());
  }
  // spdlog would create missing directories; a mistyped path should be an error instead.
  std::FILE* probe = std::fopen(options.file.c_str(), "a");
  if (probe == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("--log_file: cannot write ", options.file, ": ", std::strerror(errno)));
  }
  std::fclose(probe);
  try {
    return std::make_unique<SpdlogLogger>(
        options, std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file));
  } catch (const spdlog::spdlog_ex& e) {
    return absl::FailedPreconditionError(
        absl::StrCat("--log_file: cannot write ", options.file, ": ", e.what()));
  }
}

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name) {
  constexpr std::pair<const char*, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                          {"info", LogLevel::kInfo},
                                                          {"warning", LogLevel::kWarning},
                                                          {"error", LogLevel::kError}};
  for (const auto& [text, level] : kLevels) {
    if (name == text) return level;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\": want debug, info, warning or error"));
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view name) {
  if (name == "json") return LogFormat::kJson;
  if (name == "text") return LogFormat::kText;
  return absl::InvalidArgumentError(absl::StrCat("\"", name, "\": want json or text"));
}

}  // namespace tessera
