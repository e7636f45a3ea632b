// The real daemon fetches images over TLS, and answers as if the request had held them.
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/https_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

// "GET /3 ..." returns pictures[3], "GET /r3 ..." redirects to it, and other paths are not found.
HttpsServer::Handler Serve(const std::vector<std::string>& pictures) {
  return [&pictures](const std::string& head, const HttpsServer::Write& write) {
    const std::string path = head.substr(5, head.find(' ', 5) - 5);
    size_t index = 0;
    if (path[0] == 'r') {
      write(HttpAnswer("302 Found", "", absl::StrCat("Location: ", path.substr(1), "\r\n")));
    } else if (absl::SimpleAtoi(path, &index) && index < pictures.size()) {
      write(HttpAnswer("200 OK", pictures[index], "Content-Type: image/png\r\n"));
    } else {
      write(HttpAnswer("404 Not Found", ""));
    }
  };
}

TEST(ImageFetchTest, AnswersAreThoseOfPicturesThatAreSent) {
  const v1::GenerateRequest sent = EvalRequest(EvalLines("questions.jsonl").front());
  std::vector<std::string> pictures;
  TestCertificates certificates;
  const HttpsServer host(certificates.Make("pictures"), Serve(pictures));
  v1::GenerateRequest named = sent;
  for (v1::ContentPart& part : *named.mutable_content()) {
    if (!part.has_image()) continue;
    part.mutable_image()->set_url(host.Url("localhost", absl::StrCat("/r", pictures.size())));
    pictures.push_back(part.image().data());
    part.mutable_image()->clear_data();
  }
  ASSERT_FALSE(pictures.empty());

  ChildServer server({absl::StrCat("--image_url_hosts=localhost:", host.port()),
                      "--image_url_allow_private", "--image_url_ca_file=" + certificates.ca(),
                      "--image_url_threads=2"});
  ASSERT_TRUE(server.serving());
  const Answer want = Generate(server.inference(), sent);
  ASSERT_TRUE(want.finished.has_value()) << want.status.error_message();
  const Answer got = Generate(server.inference(), named);
  ASSERT_TRUE(got.finished.has_value()) << got.status.error_message();
  EXPECT_EQ(got.text, want.text);
  // The caches identify images by content, so it does not matter how they came.
  EXPECT_GT(got.finished->usage().cached_tokens(), 0);
  EXPECT_THAT(server.HttpGet("/metrics"),
              HasSubstr(absl::StrCat("tessera_image_fetches_total{outcome=\"ok\"} ",
                                     pictures.size(), "\n")));

  named.mutable_content(1)->mutable_image()->set_url(host.Url("localhost", "/missing?secret"));
  const ErrorView missing = View(Generate(server.inference(), named).status);
  EXPECT_EQ(missing.reason, "IMAGE_NOT_FETCHED");
  EXPECT_EQ(missing.field, "content[1].image.url");
  EXPECT_THAT(server.log(), HasSubstr("\"outcome\":\"status\""));
  EXPECT_THAT(server.log(), testing::Not(HasSubstr("secret")));
}

// The name is on the list, but its address is private.
TEST(ImageFetchTest, PrivateAddressesAreRefusedByDefault) {
  const std::vector<std::string> pictures = {"x"};
  TestCertificates certificates;
  const HttpsServer host(certificates.Make("pictures"), Serve(pictures));
  ChildServer server({absl::StrCat("--image_url_hosts=localhost:", host.port()),
                      "--image_url_ca_file=" + certificates.ca()});
  ASSERT_TRUE(server.serving());
  v1::GenerateRequest request = TextRequest("What is this?");
  request.add_content()->mutable_image()->set_url(host.Url("localhost", "/0"));
  const ErrorView refused = View(Generate(server.inference(), request).status);
  EXPECT_EQ(refused.reason, "IMAGE_NOT_FETCHED");
  EXPECT_THAT(refused.message, HasSubstr("not allowed"));
  EXPECT_THAT(server.log(), HasSubstr("\"outcome\":\"refused\""));
  EXPECT_TRUE(host.heads().empty());
}

}  // namespace
}  // namespace tessera
