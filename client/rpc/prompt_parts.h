// Builds the ordered content parts of a request from text with image markers and from image files.
// Threads: functions only, safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

using Parts = google::protobuf::RepeatedPtrField<v1::ContentPart>;

// Mark the place of an image: the first in the text of a conversation, the second in a raw prompt.
inline constexpr char kPlaceholder[] = "{image}";
inline constexpr char kRawMarker[] = "<image>";
// Larger files are refused before they are read. Servers have lower limits of their own.
inline constexpr int64_t kMaxFileBytes = 256 << 20;

// Reads a file as it is; the server decides by the content whether it is an image. Errors are those
// of ReadFile (base/read_file.h), and INVALID_ARGUMENT for an empty file.
absl::StatusOr<v1::Image> LoadImage(const std::string& path);

// Returns `path` if it is absolute, else `path` below `directory`. An empty `directory` is the
// working directory.
std::string ResolvePath(absl::string_view directory, absl::string_view path);
// Returns the part before the last slash: "a/b.jsonl" -> "a", "b.jsonl" -> "".
std::string DirectoryOf(absl::string_view path);

// Splits `text` at every `marker` and puts the images in the markers' places, in order. Leaves out
// empty text parts and keeps other text as it is. INVALID_ARGUMENT unless there are as many markers
// as images.
absl::StatusOr<Parts> SplitAtMarkers(absl::string_view text, absl::string_view marker,
                                     std::vector<v1::Image> images);

// Builds one turn of a conversation. Images take the places of {image} in the text. If the text has
// no {image}, they come first, in order. Without images the text is taken literally.
absl::StatusOr<Parts> TurnParts(absl::string_view text, std::vector<v1::Image> images);

}  // namespace tessera::client
