#include "server/process/config.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "kernels/backend/backend.h"
#include "server/net/address.h"
#include "server/net/https_url.h"

namespace tessera {
namespace {

absl::Status Wrong(absl::string_view flag, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, ": ", want));
}

absl::Status CheckCounts(const ServerConfig& c) {
  struct Row {
    const char* flag;
    int value, min, max;
  };
  const Row kRows[] = {
      {"cpu_threads", c.cpu_threads, 0, 1024},
      {"context_tokens", c.context_tokens, 0, 1 << 24},
      {"max_concurrent_streams", c.max_concurrent_streams, 1, 1 << 20},
      {"http_max_connections", c.http_max_connections, 1, 1 << 20},
      {"max_batch_tokens", c.max_batch_tokens, 1, 1 << 20},
      {"max_sequences", c.max_sequences, 1, 1 << 16},
      {"max_queue", c.max_queue, 1, 1 << 20},
      {"default_max_tokens", c.default_max_tokens, 1, 1 << 24},
      {"max_images", c.max_images, 0, 4096},
      {"decode_threads", c.decode_threads, 1, 256},
      {"image_url_threads", c.image_url_threads, 1, 256},
  };
  for (const Row& row : kRows) {
    if (row.value < row.min || row.value > row.max) {
      return Wrong(row.flag, absl::StrCat(row.value),
                   absl::StrCat("want ", row.min, " to ", row.max));
    }
  }
  if (c.max_batch_tokens < c.max_sequences) {
    return Wrong("max_batch_tokens", absl::StrCat(c.max_batch_tokens),
                 absl::StrCat("a step must hold one token for each of --max_sequences=",
                              c.max_sequences, " sequences"));
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const ServerConfig& c) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kTiB = int64_t{1} << 40;
  // gRPC's limits are 32-bit.
  constexpr int64_t kMaxMessage = std::numeric_limits<int32_t>::max();
  struct Row {
    const char* flag;
    int64_t value, min, max;
  };
  const Row kRows[] = {
      {"kv_cache_bytes", c.kv_cache_bytes.bytes > 0 ? c.kv_cache_bytes.bytes : kLeastArenaBytes,
       kLeastArenaBytes, kMostArenaBytes},
      {"image_cache_bytes", c.image_cache_bytes, 0, kTiB},
      {"max_message_bytes", c.max_message_bytes, 1024, kMaxMessage},
      {"rpc_memory_bytes", c.rpc_memory_bytes, kMiB, kTiB},
      {"max_image_bytes", c.max_image_bytes, 64, kMaxMessage},
      {"max_image_pixels", c.max_image_pixels, 1, int64_t{1} << 32},
      {"max_text_bytes", c.max_text_bytes, 1, kMaxMessage},
  };
  for (const Row& row : kRows) {
    if (row.value < row.min || row.value > row.max) {
      return Wrong(row.flag, FormatByteSize(row.value),
                   absl::StrCat("want ", FormatByteSize(row.min), " to ", FormatByteSize(row.max)));
    }
  }
  if (c.rpc_memory_bytes < c.max_message_bytes) {
    return Wrong("rpc_memory_bytes", FormatByteSize(c.rpc_memory_bytes),
                 absl::StrCat("must hold one message of --max_message_bytes=",
                              FormatByteSize(c.max_message_bytes)));
  }
  return absl::OkStatus();
}

absl::Status CheckTimes(const ServerConfig& c) {
  struct Row {
    const char* flag;
    absl::Duration value, min, max;
  };
  const Row kRows[] = {
      {"max_connection_age", c.max_connection_age, absl::Seconds(1), absl::InfiniteDuration()},
      {"handshake_timeout", c.handshake_timeout, absl::Milliseconds(10), absl::Hours(1)},
      {"idle_timeout", c.idle_timeout, absl::Milliseconds(10), absl::InfiniteDuration()},
      {"keepalive_time", c.keepalive_time, absl::Milliseconds(10), absl::Hours(24)},
      {"keepalive_timeout", c.keepalive_timeout, absl::Milliseconds(10), absl::Hours(1)},
      {"max_request_time", c.max_request_time, absl::Milliseconds(1), absl::InfiniteDuration()},
      {"image_url_timeout", c.image_url_timeout, absl::Milliseconds(10), absl::Minutes(10)},
      {"stall_timeout", c.stall_timeout, absl::Milliseconds(100), absl::Hours(24)},
      {"drain_delay", c.drain_delay, absl::ZeroDuration(), absl::Hours(1)},
      {"drain_timeout", c.drain_timeout, absl::ZeroDuration(), absl::Hours(24)},
      {"liveness_timeout", c.liveness_timeout, absl::Seconds(1), absl::Hours(24)},
  };
  for (const Row& row : kRows) {
    if (row.value < row.min || row.value > row.max) {
      return Wrong(row.flag, absl::FormatDuration(row.value),
                   absl::StrCat("want ", absl::FormatDuration(row.min), " to ",
                                absl::FormatDuration(row.max)));
    }
  }
  return absl::OkStatus();
}

enum class Traffic { kRequests, kAdmin, kMetrics };

absl::Status CheckListener(const ServerConfig& c, const char* flag, const std::string& value,
                           Traffic traffic) {
  absl::StatusOr<Address> address = ParseAddress(value);
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", address.status().message()));
  }
  if (address->loopback()) return absl::OkStatus();
  if (traffic == Traffic::kAdmin) {
    if (!c.tls.cert.empty() && !c.token_file.empty()) return absl::OkStatus();
    return Wrong(flag, value,
                 "the admin service listens on loopback (127.0.0.1:PORT) or a Unix socket "
                 "(unix:PATH); elsewhere it needs --tls_cert and --token_file");
  }
  const bool encrypted = traffic == Traffic::kRequests && !c.tls.cert.empty();
  if (!encrypted && !c.allow_plaintext) {
    return Wrong(flag, value,
                 absl::StrCat("other machines can reach this address, and connections are not "
                              "encrypted; if that is intended, give --allow_plaintext",
                              traffic == Traffic::kRequests ? ", or give --tls_cert" : ""));
  }
  return absl::OkStatus();
}

absl::Status CheckListeners(const ServerConfig& c) {
  RETURN_IF_ERROR(CheckListener(c, "listen", c.listen, Traffic::kRequests));
  if (!IsOff(c.admin_listen)) {
    RETURN_IF_ERROR(CheckListener(c, "admin_listen", c.admin_listen, Traffic::kAdmin));
  }
  if (!IsOff(c.http_listen)) {
    RETURN_IF_ERROR(CheckListener(c, "http_listen", c.http_listen, Traffic::kRequests));
    if (!ParseAddress(c.http_listen)->unix_path.empty()) {
      return Wrong("http_listen", c.http_listen, "Unix sockets are not supported here");
    }
  }
  if (!IsOff(c.metrics_listen)) {
    RETURN_IF_ERROR(CheckListener(c, "metrics_listen", c.metrics_listen, Traffic::kMetrics));
    if (!ParseAddress(c.metrics_listen)->unix_path.empty()) {
      return Wrong("metrics_listen", c.metrics_listen, "Unix sockets are not supported here");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTls(const TlsPaths& tls) {
  if (tls.cert.empty() != tls.key.empty()) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key: want both or neither");
  }
  if (!tls.client_ca.empty() && tls.cert.empty()) {
    return Wrong("tls_client_ca", tls.client_ca, "needs --tls_cert and --tls_key");
  }
  return absl::OkStatus();
}

absl::Status CheckImageUrls(const ServerConfig& c) {
  const auto rules = UrlRules::Make(c.image_url_hosts, c.image_url_allow_private);
  if (!rules.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--image_url_hosts: ", rules.status().message()));
  }
  if (!c.image_url_hosts.empty()) return absl::OkStatus();
  if (c.image_url_allow_private) {
    return Wrong("image_url_allow_private", "true", "needs --image_url_hosts");
  }
  if (!c.image_url_ca_file.empty()) {
    return Wrong("image_url_ca_file", c.image_url_ca_file, "needs --image_url_hosts");
  }
  return absl::OkStatus();
}

absl::Status CheckNames(const ServerConfig& c) {
  const std::vector<std::string> devices = BackendNames();
  if (c.device != "auto" && std::find(devices.begin(), devices.end(), c.device) == devices.end()) {
    return Wrong("device", c.device, absl::StrCat("want auto, ", absl::StrJoin(devices, ", ")));
  }
  if (c.load_format != "safetensors" && c.load_format != "dummy") {
    return Wrong("load_format", c.load_format, "want safetensors or dummy");
  }
  const auto policy = ParsePolicy(c.kv_policy);
  if (!policy.ok()) return Wrong("kv_policy", c.kv_policy, policy.status().message());
  std::vector<std::string> known;
  for (const PolicyInfo& info : PolicyTable()) known.push_back(info.name);
  for (const std::string& name : c.kv_policy_allow) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Wrong("kv_policy_allow", name,
                   absl::StrCat("unknown policy; known: ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsOff(const std::string& listen) { return listen == "off" || listen == "0"; }

absl::Status Validate(const ServerConfig& config) {
  if (config.model.empty()) {
    return absl::InvalidArgumentError(
        "--model: no model directory given, and models/demo was not found near the program");
  }
  RETURN_IF_ERROR(CheckCounts(config));
  RETURN_IF_ERROR(CheckSizes(config));
  RETURN_IF_ERROR(CheckTimes(config));
  RETURN_IF_ERROR(CheckTls(config.tls));
  RETURN_IF_ERROR(CheckListeners(config));
  RETURN_IF_ERROR(CheckImageUrls(config));
  return CheckNames(config);
}

}  // namespace tessera
