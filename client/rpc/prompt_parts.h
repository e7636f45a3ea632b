// Text with image markers plus image files -> the ordered content parts of the wire.
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

// Where an image stands in a conversation's text, and in a raw prompt.
inline constexpr char kPlaceholder[] = "{image}";
inline constexpr char kRawMarker[] = "<image>";
// A larger file is refused before it is read; servers have tighter limits of their own.
inline constexpr int64_t kMaxFileBytes = 256 << 20;

// NOT_FOUND, INVALID_ARGUMENT (no regular file, empty, too large); names the path.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = kMaxFileBytes);

// The file's bytes as they are: the server decides by their content whether it is a picture.
absl::StatusOr<v1::Image> LoadImage(const std::string& path);

// `path` itself when absolute, else below `directory` (empty: the working directory).
std::string ResolvePath(absl::string_view directory, absl::string_view path);
// "a/b.jsonl" -> "a"; "b.jsonl" -> "".
std::string DirectoryOf(absl::string_view path);

// Splits `text` at every `marker`; images take the markers' places in order. Empty text parts are
// left out, other text is passed on untouched. INVALID_ARGUMENT unless there are as many markers
// as images.
absl::StatusOr<Parts> SplitAtMarkers(absl::string_view text, absl::string_view marker,
                                     std::vector<v1::Image> images);

// One conversation turn: images stand where the text says {image}; when it says it nowhere they
// come first, in order. Without images the text is taken literally.
absl::StatusOr<Parts> TurnParts(absl::string_view text, std::vector<v1::Image> images);

}  // namespace tessera::client
