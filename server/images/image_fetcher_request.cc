// Where a request names pictures by URL.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/images/image_fetcher.h"

namespace tessera {

std::vector<ImageFetcher::Picture> ImageFetcher::PicturesOf(
    const std::vector<v1::GenerateRequest*>& requests) {
  std::vector<Picture> pictures;
  const auto add = [&](v1::Image* image, std::string path) {
    if (!image->url().empty()) pictures.push_back({image, std::move(path)});
  };
  const auto add_parts = [&](auto* parts, const std::string& prefix) {
    for (int i = 0; i < parts->size(); ++i) {
      v1::ContentPart& part = *parts->Mutable(i);
      if (part.has_image())
        add(part.mutable_image(), absl::StrCat(prefix, "content[", i, "].image"));
    }
  };
  for (v1::GenerateRequest* request : requests) {
    add_parts(request->mutable_content(), "");
    for (int i = 0; i < request->messages_size(); ++i) {
      add_parts(request->mutable_messages(i)->mutable_content(),
                absl::StrCat("messages[", i, "]."));
    }
    for (int i = 0; request->has_tokenized() && i < request->tokenized().images_size(); ++i) {
      add(request->mutable_tokenized()->mutable_images(i),
          absl::StrCat("tokenized.images[", i, "]"));
    }
  }
  return pictures;
}

bool NamesImageUrls(const v1::GenerateRequest& request) {
  const auto in = [](const auto& parts) {
    return std::any_of(parts.begin(), parts.end(),
                       [](const v1::ContentPart& part) { return !part.image().url().empty(); });
  };
  const auto& images = request.tokenized().images();
  return in(request.content()) ||
         std::any_of(request.messages().begin(), request.messages().end(),
                     [&](const v1::Message& message) { return in(message.content()); }) ||
         std::any_of(images.begin(), images.end(),
                     [](const v1::Image& image) { return !image.url().empty(); });
}

}  // namespace tessera
