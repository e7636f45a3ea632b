// Parts of standalone HTML pages. A page is one file that has no scripts and loads nothing, so that
// it can be mailed and opened anywhere. Foreign text such as prompts, policies and file names goes
// through EscapeHtml. Threads: functions only, safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera::client {

// Escapes text for elements and quoted attribute values. Control characters and bytes that are not
// UTF-8 become U+FFFD.
std::string EscapeHtml(absl::string_view text);

// Returns a whole page with this HTML as its body. The page follows the reader's light or dark
// mode. The CSS variables --text, --soft, --line, --panel, --accent and --page hold its colours.
std::string HtmlPage(absl::string_view title, absl::string_view body);

// Returns a table. Escapes the cells; all columns but the first are right-aligned.
std::string HtmlTable(const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows);

// Encodes bytes for data: URLs.
std::string Base64(absl::string_view bytes);

// Writes or replaces a file. INVALID_ARGUMENT names path and reason.
absl::Status WriteTextFile(const std::string& path, absl::string_view content);

}  // namespace tessera::client
