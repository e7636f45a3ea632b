// Mistakes of clients and operators. Each gets a clear error, and the daemon continues.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

std::string Png() { return ReadTestFile("tests/eval/images/01_00_00.png"); }

// The demo image with another width and height in its header.
std::string PngClaiming(uint32_t width, uint32_t height) {
  std::string png = Png();
  const auto store = [&png](size_t at, uint32_t value) {
    for (int i = 0; i < 4; ++i) png[at + i] = static_cast<char>(value >> (24 - 8 * i));
  };
  store(16, width);
  store(20, height);
  return png;
}

v1::GenerateRequest ShortRequest() {
  v1::GenerateRequest request = TextRequest("Hello");
  request.mutable_stopping()->set_max_tokens(2);
  return request;
}

struct BadCase {
  const char* name;
  void (*make)(v1::GenerateRequest*);  // changes an empty request
  grpc::StatusCode code;
  const char* field;
};

v1::Image* AddImage(v1::GenerateRequest* request, std::string data) {
  request->add_content()->set_text("What is this?");
  v1::Image* image = request->add_content()->mutable_image();
  image->set_data(std::move(data));
  return image;
}

using R = v1::GenerateRequest;
constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr auto kExhausted = grpc::StatusCode::RESOURCE_EXHAUSTED;

const BadCase kBadCases[] = {
    BadCase{"not_an_image", [](R* r) { AddImage(r, "GIF? no."); }, kInvalid, "content[1].image"},
    BadCase{"truncated", [](R* r) { AddImage(r, Png().substr(0, Png().size() / 2)); }, kInvalid,
            "content[1].image"},
    BadCase{"header_only", [](R* r) { AddImage(r, Png().substr(0, 33)); }, kInvalid,
            "content[1].image"},
    BadCase{"wrong_mime", [](R* r) { AddImage(r, Png())->set_mime("image/jpeg"); }, kInvalid,
            "content[1].image"},
    BadCase{"zero_size", [](R* r) { AddImage(r, PngClaiming(0, 0)); }, kInvalid,
            "content[1].image"},
    BadCase{"pixel_bomb", [](R* r) { AddImage(r, PngClaiming(16000, 16000)); }, kExhausted,
            "content[1].image"},
    BadCase{"too_many_bytes", [](R* r) { AddImage(r, std::string(70000, 'x')); }, kExhausted,
            "content[1].image"},
    BadCase{"second_image_bad",
            [](R* r) {
              AddImage(r, Png());
              AddImage(r, "x");
            },
            kInvalid, "content[3].image"},
    BadCase{"five_images",
            [](R* r) {
              for (int i = 0; i < 5; ++i) r->add_content()->mutable_image()->set_data(Png());
            },
            kInvalid, "content[4].image"},
    BadCase{"long_text", [](R* r) { r->add_content()->set_text(std::string(20000, 'q')); },
            kInvalid, "content"},
    BadCase{"long_messages",
            [](R* r) {
              auto* m = r->add_messages();
              m->set_role(v1::Message::ROLE_USER);
              m->add_content()->set_text(std::string(20000, 'q'));
            },
            kInvalid, "messages"},
    BadCase{"max_tokens_over_context",
            [](R* r) {
              r->add_content()->set_text("Hello");
              r->mutable_stopping()->set_max_tokens(512);
            },
            kInvalid, "stopping.max_tokens"},
    BadCase{"system_turn_last",
            [](R* r) {
              auto* m = r->add_messages();
              m->set_role(v1::Message::ROLE_USER);
              m->add_content()->set_text("x");
              m = r->add_messages();
              m->set_role(v1::Message::ROLE_SYSTEM);
              m->add_content()->set_text("x");
            },
            kInvalid, "messages[1].role"},
    BadCase{"image_without_place",
            [](R* r) {
              r->mutable_tokenized()->add_ids(1);
              r->mutable_tokenized()->add_images()->set_data(Png());
            },
            kInvalid, "tokenized.ids"},
    BadCase{"empty_text",
            [](R* r) {
              r->add_content()->set_text("");
              r->set_apply_template(false);
            },
            kInvalid, "content"}};

// One daemon gets all of them in turn, and still answers correctly.
TEST(BadInputTest, IsRefusedByName) {
  ChildServer server({"--max_images=4", "--max_image_bytes=64KiB", "--max_image_pixels=1000000",
                      "--context_tokens=512"});
  for (const BadCase& bad : kBadCases) {
    SCOPED_TRACE(bad.name);
    v1::GenerateRequest request;
    bad.make(&request);
    const Answer answer = Generate(server.inference(), request);
    const ErrorView error = View(answer.status);
    EXPECT_EQ(error.code, bad.code) << error.message;
    EXPECT_EQ(error.field, bad.field) << error.message;
    EXPECT_EQ(error.domain, "tessera");
    EXPECT_FALSE(answer.accepted.has_value());  // no OK status and no event
  }
  const auto question = EvalLines("questions.jsonl").front();
  const Answer answer = Generate(server.inference(), EvalRequest(question));
  EXPECT_EQ(absl::StripAsciiWhitespace(answer.text), std::string(question["reference"]));
  EXPECT_TRUE(Eventually([&] { return server.Load().kv_bytes_used() == 0; }));
}

TEST(BadStartTest, MessagesAboveTheLimitAreRefused) {
  ChildServer server({"--max_message_bytes=4KiB"});
  const Answer answer = Generate(server.inference(), TextRequest(std::string(5000, 'x')));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Generate(server.inference(), ShortRequest()).status.ok());
}

// A copy of the demo model that the test may damage.
class ModelCopy {
 public:
  ModelCopy() : dir_(absl::StrCat(testing::TempDir(), "model.", getpid())) {
    fs::remove_all(dir_);
    fs::copy(SourcePath("models/demo"), dir_, fs::copy_options::recursive);
  }
  ~ModelCopy() { fs::remove_all(dir_); }
  std::string flag() const { return "--model=" + dir_; }
  std::string path(const std::string& file) const { return dir_ + "/" + file; }
  void Overwrite(const std::string& file, const std::string& text) const {
    std::ofstream(path(file), std::ios::binary) << text;
  }

 private:
  std::string dir_;
};

const std::vector<std::string> kAnyPorts = {"--listen=127.0.0.1:0", "--admin_listen=off",
                                            "--metrics_listen=off", "--http_listen=off",
                                            "--kv_cache_bytes=8MiB"};

RunResult RunWith(std::vector<std::string> flags) {
  flags.insert(flags.begin(), kAnyPorts.begin(), kAnyPorts.end());
  return RunTesserad(flags);
}

TEST(BadStartTest, CorruptCheckpointsAreNamed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"config.json", "{ \"model_type\": "},
      {"tokenizer.model", "not a model"},
      {"model.safetensors.index.json", "{}"},
      {"model-00002-of-00002.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}"}};
  for (const auto& [file, text] : kCases) {
    const ModelCopy model;
    model.Overwrite(file, text);
    const RunResult run = RunWith({model.flag()});
    EXPECT_EQ(run.status, 1) << file;
    EXPECT_THAT(run.output, HasSubstr(file));
  }
  const ModelCopy cut;
  fs::resize_file(cut.path("model-00001-of-00002.safetensors"), 1000);
  const RunResult run = RunWith({cut.flag()});
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.output, HasSubstr("model-00001-of-00002.safetensors"));
}

TEST(BadStartTest, BadFlagsAreNamed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"--model=/nonexistent", "/nonexistent"},
      {"--log_file=/nonexistent/log", "/nonexistent/log"},
      {"--log_format=xml", "--log_format"},
      {"--device=tpu", "--device=tpu"},
      {"--kv_policy=zip", "--kv_policy=zip"},
      {"--kv_cache_bytes=lots", "kv_cache_bytes"},
      {"--kv_cache_bytes=80%", "this device has no memory of its own"},
      {"--listen=0.0.0.0:0", "--allow_plaintext"},
      {"--http_listen=0.0.0.0:0", "--allow_plaintext"},
      {"--context_tokens=100000", "--context_tokens=100000"},
      {"--no_such_flag=1", "no_such_flag"},
      {"stray", "stray"}};
  for (const auto& [flag, message] : kCases) {
    const RunResult run = RunWith({flag});
    EXPECT_EQ(run.status, 1) << flag;
    EXPECT_THAT(run.output, HasSubstr(message)) << flag;
  }
}

TEST(BadStartTest, TakenPortsAreNamed) {
  ChildServer first;
  for (const char* flag : {"--listen=", "--admin_listen=", "--metrics_listen=", "--http_listen="}) {
    const RunResult run = RunWith({flag + first.listen()});
    EXPECT_EQ(run.status, 1) << flag;
    EXPECT_THAT(run.output, HasSubstr("another process listens on this address")) << flag;
    EXPECT_THAT(run.output, HasSubstr(first.listen())) << flag;
  }
  EXPECT_TRUE(Generate(first.inference(), ShortRequest()).status.ok());
}

}  // namespace
}  // namespace tessera
