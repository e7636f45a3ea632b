// What standalone HTML pages share: one file each, without scripts and without anything to load, so
// that they can be mailed and opened anywhere. Text of others (prompts, policies, file names) goes
// through EscapeHtml.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera::client {

// For text and for quoted attribute values. Control characters and what is not UTF-8 become U+FFFD.
std::string EscapeHtml(absl::string_view text);

// A whole page; `body` is HTML. Follows the reader's light or dark setting; its colours are the CSS
// variables --text, --soft, --line, --panel and --accent, for style attributes of `body` too.
std::string HtmlPage(absl::string_view title, absl::string_view body);

// <table>; cells are text, to be escaped here. Numbers to the right: all columns but the first.
std::string HtmlTable(const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows);

std::string Base64(absl::string_view bytes);

// Replaces the file. Errors name the path.
absl::Status WriteTextFile(const std::string& path, absl::string_view content);

}  // namespace tessera::client
