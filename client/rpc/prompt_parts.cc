#include "client/rpc/prompt_parts.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/read_file.h"

namespace tessera::client {
namespace {

void AddText(absl::string_view text, Parts* parts) {
  if (!text.empty()) parts->Add()->set_text(std::string(text));
}

}  // namespace

absl::StatusOr<v1::Image> LoadImage(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kMaxFileBytes));
  if (bytes.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": the file is empty"));
  v1::Image image;
  image.set_data(std::move(bytes));
  return image;
}

std::string ResolvePath(absl::string_view directory, absl::string_view path) {
  if (directory.empty() || absl::StartsWith(path, "/")) return std::string(path);
  return absl::StrCat(directory, "/", path);
}

std::string DirectoryOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return "";
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

absl::StatusOr<Parts> SplitAtMarkers(absl::string_view text, absl::string_view marker,
                                     std::vector<v1::Image> images) {
  Parts parts;
  size_t markers = 0;
  while (true) {
    const size_t at = text.find(marker);
    AddText(text.substr(0, at), &parts);
    if (at == absl::string_view::npos) break;
    if (markers < images.size()) *parts.Add()->mutable_image() = std::move(images[markers]);
    ++markers;
    text.remove_prefix(at + marker.size());
  }
  if (markers != images.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the text has ", markers, " ", marker,
                                                   " markers, but there are ", images.size(),
                                                   " images"));
  }
  return parts;
}

absl::StatusOr<Parts> TurnParts(absl::string_view text, std::vector<v1::Image> images) {
  if (!images.empty() && absl::StrContains(text, kPlaceholder)) {
    return SplitAtMarkers(text, kPlaceholder, std::move(images));
  }
  Parts parts;
  for (v1::Image& image : images) *parts.Add()->mutable_image() = std::move(image);
  AddText(text, &parts);
  return parts;
}

}  // namespace tessera::client
