#include "server/process/config.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/process/flags.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::HasSubstr;

ServerConfig Good() {
  ServerConfig config;
  config.model = "models/demo";
  return config;
}

TEST(ConfigTest, DefaultsAreValid) { EXPECT_TRUE(Validate(Good()).ok()) << Validate(Good()); }

struct Case {
  const char* name;
  std::function<void(ServerConfig*)> change;
  const char* message;
};

class BadConfigTest : public testing::TestWithParam<Case> {};

TEST_P(BadConfigTest, IsNamed) {
  ServerConfig config = Good();
  GetParam().change(&config);
  const absl::Status status = Validate(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    testing::Values(
        Case{"model", [](ServerConfig* c) { c->model = ""; }, "--model"},
        Case{"threads", [](ServerConfig* c) { c->decode_threads = 0; }, "--decode_threads=0"},
        Case{"queue", [](ServerConfig* c) { c->max_queue = 0; }, "--max_queue=0"},
        Case{"batch", [](ServerConfig* c) { c->max_batch_tokens = 8; }, "--max_sequences=64"},
        Case{"images", [](ServerConfig* c) { c->max_images = -1; }, "--max_images=-1"},
        Case{"arena", [](ServerConfig* c) { c->kv_cache_bytes.bytes = 1024; },
             "--kv_cache_bytes=1KiB"},
        Case{"message", [](ServerConfig* c) { c->max_message_bytes = int64_t{2} << 30; },
             "--max_message_bytes=2GiB"},
        Case{"quota", [](ServerConfig* c) { c->rpc_memory_bytes = 1 << 20; },
             "--rpc_memory_bytes=1MiB"},
        Case{"stall", [](ServerConfig* c) { c->stall_timeout = absl::ZeroDuration(); },
             "--stall_timeout=0"},
        Case{"keepalive", [](ServerConfig* c) { c->keepalive_time = absl::InfiniteDuration(); },
             "--keepalive_time=inf"},
        Case{"keepalive_timeout", [](ServerConfig* c) { c->keepalive_timeout = absl::Hours(2); },
             "--keepalive_timeout=2h"},
        Case{"delay", [](ServerConfig* c) { c->drain_delay = absl::Seconds(-1); },
             "--drain_delay=-1s"},
        Case{"device", [](ServerConfig* c) { c->device = "tpu"; }, "--device=tpu"},
        Case{"format", [](ServerConfig* c) { c->load_format = "pickle"; }, "--load_format=pickle"},
        Case{"policy", [](ServerConfig* c) { c->kv_policy = "nope"; }, "--kv_policy=nope"},
        Case{"allow",
             [](ServerConfig* c) {
               c->kv_policy_allow = {"none", "nope"};
             },
             "--kv_policy_allow=nope"},
        Case{"listen", [](ServerConfig* c) { c->listen = "nonsense"; }, "--listen"},
        Case{"open", [](ServerConfig* c) { c->listen = "0.0.0.0:1"; }, "--allow_plaintext"},
        Case{"open_http", [](ServerConfig* c) { c->http_listen = "0.0.0.0:1"; }, "--tls_cert"},
        Case{"open_metrics",
             [](ServerConfig* c) {
               c->metrics_listen = "0.0.0.0:1";
               c->tls = {"cert", "key", ""};  // metrics are plain text all the same
             },
             "--allow_plaintext"},
        Case{"admin",
             [](ServerConfig* c) {
               c->admin_listen = "[::]:1";
               c->allow_plaintext = true;
             },
             "--admin_listen=[::]:1"},
        Case{"certificate_alone", [](ServerConfig* c) { c->tls.cert = "cert"; }, "--tls_key"},
        Case{"key_alone", [](ServerConfig* c) { c->tls.key = "key"; }, "--tls_cert"},
        Case{"client_ca_alone", [](ServerConfig* c) { c->tls.client_ca = "ca"; },
             "--tls_client_ca=ca"},
        Case{"image_hosts",
             [](ServerConfig* c) {
               c->image_url_hosts = {"a.example.com", "*"};
             },
             "--image_url_hosts: \"*\""},
        Case{"image_private_alone", [](ServerConfig* c) { c->image_url_allow_private = true; },
             "needs --image_url_hosts"},
        Case{"image_ca_alone", [](ServerConfig* c) { c->image_url_ca_file = "ca"; },
             "--image_url_ca_file=ca"},
        Case{"image_threads", [](ServerConfig* c) { c->image_url_threads = 0; },
             "--image_url_threads=0"},
        Case{"image_timeout",
             [](ServerConfig* c) { c->image_url_timeout = absl::InfiniteDuration(); },
             "--image_url_timeout=inf"},
        Case{"metrics", [](ServerConfig* c) { c->metrics_listen = "unix:/x"; },
             "--metrics_listen"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ConfigTest, OpenAddressesCanBeAskedFor) {
  ServerConfig config = Good();
  config.listen = "0.0.0.0:8600";
  config.allow_plaintext = true;
  config.metrics_listen = "off";
  config.admin_listen = "unix:/tmp/admin";
  EXPECT_TRUE(Validate(config).ok()) << Validate(config);
}

TEST(ConfigTest, EncryptedAddressesMayBeOpen) {
  ServerConfig config = Good();
  config.listen = config.http_listen = "0.0.0.0:8600";
  config.tls = {"cert", "key", "ca"};
  EXPECT_TRUE(Validate(config).ok()) << Validate(config);
}

TEST(FlagsTest, FindsTheDemoModelFromTheBuildTree) {
  EXPECT_EQ(FindDemoModel(BinaryPath("tesserad")), SourcePath("models/demo"));
  EXPECT_EQ(FindDemoModel("/nowhere/tesserad"), "");
}

}  // namespace
}  // namespace tessera
