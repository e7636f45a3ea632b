#include "client/rpc/prompt_parts.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

// Images of 1, 2, ... bytes: "[1]", "[2]", ... when flattened.
std::vector<v1::Image> Images(int count) {
  std::vector<v1::Image> images(count);
  for (int i = 0; i < count; ++i) images[i].set_data(std::string(i + 1, 'x'));
  return images;
}

TEST(ClientPromptParts, SplitsAtMarkersAndKeepsText) {
  const auto parts = SplitAtMarkers(" a\n<image><image> b <image>", kRawMarker, Images(3));
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->size(), 5);
  EXPECT_EQ((*parts)[0].text(), " a\n");
  EXPECT_EQ((*parts)[3].text(), " b ");
  EXPECT_EQ(Flatten(*parts), " a\n[1][2] b [3]");
}

TEST(ClientPromptParts, CountsMustMatch) {
  for (int images : {0, 1, 3}) {
    const auto parts = SplitAtMarkers("<image> <image>", kRawMarker, Images(images));
    EXPECT_EQ(parts.status().code(), absl::StatusCode::kInvalidArgument) << images;
  }
  EXPECT_EQ(SplitAtMarkers("x", kRawMarker, Images(1)).status().message(),
            "the text has 0 <image> markers, but there are 1 images");
}

TEST(ClientPromptParts, TurnPutsImagesFirstOrAtPlaceholders) {
  EXPECT_EQ(Flatten(*TurnParts("what?", Images(2))), "[1][2]what?");
  EXPECT_EQ(Flatten(*TurnParts("{image} or {image}?", Images(2))), "[1] or [2]?");
  EXPECT_EQ(Flatten(*TurnParts("the word {image}", {})), "the word {image}");
  // <image> has no meaning in a conversation, and the server does not take it for an image either.
  EXPECT_EQ(Flatten(*TurnParts("<image>", Images(1))), "[1]<image>");
  EXPECT_FALSE(TurnParts("{image}", Images(2)).ok());
}

TEST(ClientPromptParts, Paths) {
  EXPECT_EQ(DirectoryOf("a/b/c.jsonl"), "a/b");
  EXPECT_EQ(DirectoryOf("c.jsonl"), "");
  EXPECT_EQ(DirectoryOf("/c.jsonl"), "/");
  EXPECT_EQ(ResolvePath("a/b", "i/x.png"), "a/b/i/x.png");
  EXPECT_EQ(ResolvePath("a/b", "/x.png"), "/x.png");
  EXPECT_EQ(ResolvePath("", "x.png"), "x.png");
}

TEST(ClientPromptParts, FileErrorsNameThePath) {
  const std::string path = WriteFile("five", "12345");
  EXPECT_EQ(LoadImage(path)->data(), "12345");
  EXPECT_EQ(LoadImage(path + "x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadImage(DirectoryOf(path)).status().message(),
            DirectoryOf(path) + ": not a regular file");
  const std::string empty = WriteFile("empty", "");
  EXPECT_EQ(LoadImage(empty).status().message(), empty + ": the file is empty");
  const std::string huge = WriteFile("huge", "");
  std::filesystem::resize_file(huge, kMaxFileBytes + 1);  // sparse: takes no space
  EXPECT_EQ(LoadImage(huge).status().message(), huge + ": 268435457 bytes, more than 268435456");
}

}  // namespace
}  // namespace tessera::client
