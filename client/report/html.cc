#include "client/report/html.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace tessera::client {
namespace {

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --text: #1b2330; --soft: #5d6878; --line: #d5dae2;
  --panel: #f6f7f9; --accent: #b4501e; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --soft: #98a2b1; --line: #38414f; --panel: #1c222c; --accent: #f0985f;
    --page: #141920; } }
body { background: var(--page); color: var(--text); margin: 2.5rem auto; max-width: 64rem;
  padding: 0 1.25rem; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
code { font: 13px/1.4 ui-monospace, monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
svg { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); }
)";

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  // The JSON library replaces bytes that are not UTF-8; parsing removes its quotes and escapes.
  const std::string dumped = nlohmann::json(std::string(text))
                                 .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const std::string clean = nlohmann::json::parse(dumped).get<std::string>();
  std::string out;
  for (const char c : clean) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
      case '\t':
        out += c;
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += "\xef\xbf\xbd";
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string HtmlPage(absl::string_view title, absl::string_view body) {
  return absl::StrCat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
                      "<title>", EscapeHtml(title), "</title>\n<style>", kStyle,
                      "</style>\n</head>\n<body>\n", body, "</body>\n</html>\n");
}

std::string HtmlTable(const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table>\n<tr>";
  for (const std::string& cell : header) absl::StrAppend(&out, "<th>", EscapeHtml(cell), "</th>");
  out += "</tr>\n";
  for (const std::vector<std::string>& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) absl::StrAppend(&out, "<td>", EscapeHtml(cell), "</td>");
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string Base64(absl::string_view bytes) { return absl::Base64Escape(bytes); }

absl::Status WriteTextFile(const std::string& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(errno)));
}

}  // namespace tessera::client
