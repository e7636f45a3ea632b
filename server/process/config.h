// Everything that an operator can set, as one plain struct, and its only validation.
//
// flags.cc fills it from the command line, and tests fill it by hand. flags.cc explains each field
// at the flag of the same name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/access/tls.h"
#include "server/observability/log.h"
#include "server/process/arena_size.h"

namespace tessera {

struct ServerConfig {
  // Model and device.
  std::string model;
  std::string model_name;  // empty: the directory's name
  std::string device = "auto";
  std::string load_format = "safetensors";
  int cpu_threads = 0;
  int context_tokens = 0;

  // Listeners.
  std::string listen = "127.0.0.1:8600";
  std::string admin_listen = "127.0.0.1:8601";
  std::string http_listen = "127.0.0.1:8602";
  std::string metrics_listen = "127.0.0.1:9090";
  bool allow_plaintext = false;
  TlsPaths tls;            // cert empty: plain text
  std::string token_file;  // empty: every caller may do everything
  bool reflection = true;
  int64_t max_message_bytes = int64_t{64} << 20;
  int64_t rpc_memory_bytes = int64_t{1} << 30;
  int max_concurrent_streams = 1024;
  int http_max_connections = 1024;
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration idle_timeout = absl::Minutes(5);
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);

  // Cache and batching.
  ArenaSize kv_cache_bytes;
  std::string kv_policy = "none";
  std::vector<std::string> kv_policy_allow;  // empty: every policy of this build
  bool allow_explain = false;
  int64_t image_cache_bytes = int64_t{256} << 20;
  bool prefix_cache = true;
  int max_batch_tokens = 512;
  int max_sequences = 64;
  int max_queue = 256;

  // Limits on one request.
  int default_max_tokens = 1024;
  int max_images = 32;
  int64_t max_image_bytes = int64_t{20} << 20;
  int64_t max_image_pixels = 64'000'000;
  int64_t max_text_bytes = int64_t{4} << 20;
  // Images named by URL.
  std::vector<std::string> image_url_hosts;  // empty: none are fetched
  bool image_url_allow_private = false;
  std::string image_url_ca_file;  // empty: the system's
  absl::Duration image_url_timeout = absl::Seconds(10);
  absl::Duration max_request_time = absl::Hours(1);
  absl::Duration stall_timeout = absl::Seconds(30);

  // Threads in addition to the engine's.
  int decode_threads = 2;
  int image_url_threads = 8;

  // Lifecycle.
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration liveness_timeout = absl::Seconds(60);

  LogOptions log;

  // Flag name -> value, for the log and GetServerInfo; empty where flags were not used.
  std::map<std::string, std::string> effective;
};

// Returns INVALID_ARGUMENT with the flag, its value and the allowed values. Reads no files.
absl::Status Validate(const ServerConfig& config);

// Returns true for "off" and "0", which switch a listener off.
bool IsOff(const std::string& listen);

}  // namespace tessera
