#include "tests/layers/layer_rules.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tests/layers/layer_table.h"

namespace tessera::layers {
namespace {

namespace fs = std::filesystem;

constexpr int kHeaderGoalLines = 150;
constexpr int kSourceGoalLines = 300;
constexpr int kTestLimitLines = 500;
constexpr int kLimitLines = 400;
// The maximum number of units in a folder. A header and its source are one unit.
constexpr int kRoomGoalUnits = 15;
constexpr int kRoomLimitUnits = 20;

// Headers that a .cu file may include in addition to kernels/ and the standard library.
constexpr absl::string_view kCudaHeaders[] = {"cuda", "cublas", "cooperative_groups", "mma.h",
                                              "cub/", "nv/",    "vector_types.h"};

template <typename Range, typename Value>
bool Contains(const Range& range, const Value& value) {
  return std::find(std::begin(range), std::end(range), value) != std::end(range);
}

const Folder* FindFolder(absl::string_view name) {
  for (const Folder& folder : Folders()) {
    if (folder.name == name) return &folder;
  }
  return nullptr;
}

// A file that is being checked.
struct File {
  fs::path root;
  const Folder& folder;
  std::string path;  // Relative to the root.
  std::vector<std::string> lines;
  Findings& findings;

  void Violation(size_t line, absl::string_view what) const {
    findings.violations.push_back(absl::StrCat(path, ":", line, ": ", what));
  }
  void Warning(size_t line, absl::string_view what) const {
    findings.warnings.push_back(absl::StrCat(path, ":", line, ": ", what));
  }
  bool Is(absl::string_view extension) const { return absl::EndsWith(path, extension); }
  bool IsHeader() const { return Is(".h") || Is(".cuh"); }
};

// Returns the sub-folder of `path` in `folder`: "text" for engine/text/utf8.h, "" for
// cache/audit.h.
std::string RoomOf(absl::string_view path, const Folder& folder) {
  absl::ConsumePrefix(&path, folder.name);
  absl::ConsumePrefix(&path, "/");
  const size_t end = path.rfind('/');
  return std::string(end == absl::string_view::npos ? "" : path.substr(0, end));
}

// Returns the index of a sub-folder in its folder's table, or -1 if the table lacks it.
int FloorOf(absl::string_view room, const Folder& folder) {
  const auto found = std::find(folder.rooms.begin(), folder.rooms.end(), room);
  return found == folder.rooms.end() ? -1 : static_cast<int>(found - folder.rooms.begin());
}

bool IsSource(const fs::path& path) {
  return Contains(std::vector<std::string>{".h", ".cc", ".cu", ".cuh"}, path.extension().string());
}

bool IsStandardHeader(absl::string_view include) {
  if (!absl::StrContains(include, '.') && !absl::StrContains(include, '/')) return true;
  constexpr absl::string_view kC[] = {"stdint.h", "stddef.h", "math.h", "string.h", "stdlib.h"};
  return Contains(kC, include);
}

// Parses `#  include <a/b.h>  // why` to "a/b.h". Sets `quoted` for "" instead of <>.
bool ParseInclude(absl::string_view line, std::string* include, bool* quoted) {
  line = absl::StripLeadingAsciiWhitespace(line);
  if (!absl::ConsumePrefix(&line, "#")) return false;
  line = absl::StripLeadingAsciiWhitespace(line);
  if (!absl::ConsumePrefix(&line, "include")) return false;
  line = absl::StripLeadingAsciiWhitespace(line);
  if (line.empty() || (line[0] != '"' && line[0] != '<')) return false;
  *quoted = line[0] == '"';
  const size_t end = line.find(*quoted ? '"' : '>', 1);
  if (end == absl::string_view::npos) return false;
  *include = std::string(line.substr(1, end - 1));
  return true;
}

// Checks that includes between sub-folders go down the table only.
void CheckRooms(const File& file, size_t line, const std::string& include) {
  if (file.folder.rooms.empty()) return;
  const std::string from = RoomOf(file.path, file.folder), to = RoomOf(include, file.folder);
  if (FloorOf(to, file.folder) > FloorOf(from, file.folder)) {
    const std::string room =
        from.empty() ? std::string(file.folder.name) : absl::StrCat(file.folder.name, "/", from);
    file.Violation(line, absl::StrCat(room, " may not include ", include));
  }
}

void CheckInclude(const File& file, size_t line, const std::string& include, bool quoted) {
  const absl::string_view top = absl::string_view(include).substr(0, include.find('/'));
  const bool ours = FindFolder(top) != nullptr || top == "tessera";
  if (absl::StrContains(include, "..")) {
    file.Violation(line, absl::StrCat("include ", include, " climbs out of its folder"));
  }
  if (ours && top != file.folder.name && !Contains(file.folder.may_use, top)) {
    file.Violation(line, absl::StrCat(file.folder.name, " may not include ", include));
  }
  if (top == file.folder.name) CheckRooms(file, line, include);
  if (quoted && !ours && !absl::StartsWith(include, "absl/")) {
    // A path relative to the including file would escape the rule above. Headers of other libraries
    // are allowed if the project has no such file.
    if (fs::exists(fs::path(file.root / file.path).parent_path() / include)) {
      file.Violation(line, absl::StrCat("include ", include, " by its path from the root"));
    }
  }
  for (const Confined& library : ConfinedIncludes()) {
    if (absl::StartsWith(include, library.prefix) && !Contains(library.folders, file.folder.name)) {
      file.Violation(line, absl::StrCat(file.folder.name, " may not know ", include));
    }
  }
  if ((file.Is(".cu") || file.Is(".cuh")) && top != "kernels" && top != "base" &&
      !IsStandardHeader(include)) {
    const bool cuda =
        std::any_of(std::begin(kCudaHeaders), std::end(kCudaHeaders),
                    [&](absl::string_view prefix) { return absl::StartsWith(include, prefix); });
    if (!cuda) file.Violation(line, absl::StrCat("a .cu file may not include ", include));
  }
}

// Build flags in a header would let two files disagree about one type. Macros that the compiler
// itself defines (they start with two underscores) do not depend on our build.
void CheckConditional(const File& file, size_t line_number, absl::string_view line) {
  line = absl::StripLeadingAsciiWhitespace(line);
  if (!absl::ConsumePrefix(&line, "#")) return;
  line = absl::StripLeadingAsciiWhitespace(line);
  const bool conditional = absl::StartsWith(line, "if") || absl::StartsWith(line, "elif");
  if (!conditional) return;
  const size_t comment = line.find("//");
  line = line.substr(0, comment);
  size_t begin = 0;
  while (begin < line.size()) {
    size_t end = begin;
    while (end < line.size() && (absl::ascii_isalnum(line[end]) || line[end] == '_')) ++end;
    const absl::string_view word = line.substr(begin, end - begin);
    const bool identifier = !word.empty() && !absl::ascii_isdigit(word[0]);
    constexpr absl::string_view kDirective[] = {"if", "ifdef", "ifndef", "elif", "defined"};
    if (identifier && !absl::StartsWith(word, "__") && !Contains(kDirective, word)) {
      file.Violation(line_number, absl::StrCat("header depends on the macro ", word));
    }
    begin = std::max(end, begin + 1);
  }
}

// Moments come from the steady clock (base/clock.h). A wall clock's moment among them would be
// wrong by the age of the machine, without an error.
void CheckClock(const File& file, size_t line_number, absl::string_view line) {
  if (file.folder.name == "tests") return;
  line = line.substr(0, line.find("//"));
  if (absl::StrContains(line, "absl::Now()") && !absl::StrContains(line, "ToUnixSeconds(")) {
    file.Violation(line_number, "absl::Now() is for dates, ToUnixSeconds(absl::Now())");
  }
}

void CheckSource(const File& file) {
  for (size_t i = 0; i < file.lines.size(); ++i) {
    std::string include;
    bool quoted = false;
    if (ParseInclude(file.lines[i], &include, &quoted)) {
      CheckInclude(file, i + 1, include, quoted);
    } else if (file.IsHeader()) {
      CheckConditional(file, i + 1, file.lines[i]);
    }
    CheckClock(file, i + 1, file.lines[i]);
  }
  const int lines = static_cast<int>(file.lines.size());
  // A -inl.h file is a source that several others include.
  const bool short_file = file.IsHeader() && !file.Is("-inl.h");
  const int goal = short_file ? kHeaderGoalLines : kSourceGoalLines;
  const int limit = file.folder.name == "tests" ? kTestLimitLines : kLimitLines;
  if (lines > limit && !Contains(LongTables(), file.path)) {
    file.Violation(lines, absl::StrCat("longer than ", limit, " lines"));
  } else if (lines > goal) {
    file.Warning(lines, absl::StrCat("longer than ", goal, " lines"));
  }
}

void CheckCMake(const File& file) {
  for (size_t i = 0; i < file.lines.size(); ++i) {
    const absl::string_view line =
        absl::string_view(file.lines[i]).substr(0, file.lines[i].find('#'));
    for (absl::string_view word :
         absl::StrSplit(line, absl::ByAnyChar(" \t();\""), absl::SkipEmpty())) {
      absl::string_view folder = word;
      if (absl::ConsumePrefix(&folder, "tessera_") && FindFolder(folder) != nullptr &&
          folder != file.folder.name && !Contains(file.folder.may_use, folder)) {
        file.Violation(i + 1, absl::StrCat(file.folder.name, " may not depend on ", word));
      }
      for (const Confined& library : ConfinedTargets()) {
        if (absl::StartsWith(word, library.prefix) &&
            !Contains(library.folders, file.folder.name)) {
          file.Violation(i + 1, absl::StrCat(file.folder.name, " may not link ", word));
        }
      }
    }
  }
}

// Checks that every sub-folder is in the table, and that none holds too many units.
void CheckSizes(const Folder& folder, const std::map<std::string, std::set<std::string>>& units,
                Findings& findings) {
  for (const auto& [room, names] : units) {
    const std::string path =
        room.empty() ? std::string(folder.name) : absl::StrCat(folder.name, "/", room);
    if (FloorOf(room, folder) < 0) {
      findings.violations.push_back(absl::StrCat(path, ": no room in tests/layers/layer_table.cc"));
    }
    const int count = static_cast<int>(names.size());
    if (count <= kRoomGoalUnits) continue;
    auto& list = count > kRoomLimitUnits ? findings.violations : findings.warnings;
    list.push_back(absl::StrCat(path, ": ", count, " units, more than ",
                                count > kRoomLimitUnits ? kRoomLimitUnits : kRoomGoalUnits));
  }
}

// Sorted, so that the findings come in a fixed order.
std::set<fs::path> FilesBelow(const fs::path& folder) {
  std::set<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.insert(entry.path());
  }
  return files;
}

}  // namespace

Findings CheckTree(const fs::path& root) {
  Findings findings;
  for (const Folder& folder : Folders()) {
    std::map<std::string, std::set<std::string>> units;  // by sub-folder
    for (const fs::path& path : FilesBelow(root / std::string(folder.name))) {
      const bool cmake = path.filename() == "CMakeLists.txt";
      if (!cmake && !IsSource(path)) continue;
      File file{root, folder, fs::relative(path, root).string(), {}, findings};
      std::ifstream stream(path);
      for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
      if (!stream.eof()) file.Violation(0, "cannot be read");
      if (cmake) {
        CheckCMake(file);
      } else {
        CheckSource(file);
        units[RoomOf(file.path, folder)].insert(path.stem().string());
      }
    }
    if (!folder.rooms.empty()) CheckSizes(folder, units, findings);
  }
  return findings;
}

std::vector<std::string> CheckedFolders(const fs::path& root) {
  std::vector<std::string> folders;
  for (const Folder& folder : Folders()) {
    const std::set<fs::path> files = FilesBelow(root / std::string(folder.name));
    if (std::any_of(files.begin(), files.end(), IsSource)) folders.emplace_back(folder.name);
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace tessera::layers
