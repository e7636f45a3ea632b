#include "server/process/flags.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "base/version.h"

using tessera::ArenaSize;
using tessera::ByteSize;
using tessera::ServerConfig;

// ServerConfig has the defaults.
static const ServerConfig& Defaults() {
  static const ServerConfig* const defaults = new ServerConfig();
  return *defaults;
}
#define D(field) Defaults().field
#define D_BYTES(field) (ByteSize{Defaults().field})

// Model and device.
ABSL_FLAG(std::string, model, "",
          "Directory of a llava-hf checkpoint. Default: the demo model that comes with tesserad.");
ABSL_FLAG(std::string, model_name, D(model_name),
          "Name that requests and metrics use. Default: the directory's name.");
ABSL_FLAG(std::string, device, D(device),
          "auto, cpu, cuda, or reference (slow scalar code, for checking).");
ABSL_FLAG(std::string, load_format, D(load_format),
          "safetensors, or dummy: random weights from config.json alone, for speed work.");
ABSL_FLAG(int32_t, cpu_threads, D(cpu_threads),
          "Threads of the CPU backend, 0 to 1024; 0: one for each available core.");
ABSL_FLAG(
    int32_t, context_tokens, D(context_tokens),
    "Most tokens of prompt and answer together; 0: the number that the model was trained for, "
    "which is also the upper limit.");
// Listeners.
ABSL_FLAG(std::string, listen, D(listen),
          "Address of the public gRPC services: host:port (port 0: any free one) or unix:path.");
ABSL_FLAG(std::string, admin_listen, D(admin_listen),
          "Address of tessera.v1.Control, the operator's service: loopback or unix:path, elsewhere "
          "only with --tls_cert and --token_file; off: none.");
ABSL_FLAG(std::string, http_listen, D(http_listen),
          "Address of the OpenAI-compatible HTTP API, host:port; off: none.");
ABSL_FLAG(int32_t, http_max_connections, D(http_max_connections),
          "HTTP connections at once, 1 to 1048576; more are refused with 503.");
ABSL_FLAG(std::string, metrics_listen, D(metrics_listen),
          "Address of Prometheus metrics, GET /metrics; off: none.");
ABSL_FLAG(bool, allow_plaintext, D(allow_plaintext),
          "Allow addresses that other machines can reach although connections to them are not "
          "encrypted: --listen and --http_listen without --tls_cert, and --metrics_listen.");
// Certificates: PEM files, read again when they change.
ABSL_FLAG(std::string, tls_cert, D(tls.cert),
          "File of the server's certificate, followed by the intermediate ones. With it, --listen, "
          "--http_listen and --admin_listen are encrypted, except Unix sockets.");
ABSL_FLAG(std::string, tls_key, D(tls.key), "File of its private key, not encrypted.");
ABSL_FLAG(
    std::string, tls_client_ca, D(tls.client_ca),
    "File of the certificates that sign the clients' certificates; with it, a client must show "
    "one.");
ABSL_FLAG(std::string, token_file, D(token_file),
          "File of the callers: a line has the SHA-256 of a token in hexadecimal, a name, and "
          "limits (requests_per_minute=N concurrent=N max_tokens=N policies=A,B admin). With it, "
          "every call except health and reflection needs \"authorization: Bearer TOKEN\", and "
          "tessera.v1.Control one with admin. Read again when it changes.");
ABSL_FLAG(bool, reflection, D(reflection), "Serve gRPC reflection, for grpcurl and the like.");
ABSL_FLAG(ByteSize, max_message_bytes, D_BYTES(max_message_bytes),
          "Largest request message, 1KiB to 2GiB - 1.");
ABSL_FLAG(ByteSize, rpc_memory_bytes, D_BYTES(rpc_memory_bytes),
          "Memory for gRPC's buffers, 1MiB to 1TiB; readers are slowed down when it is full.");
ABSL_FLAG(int32_t, max_concurrent_streams, D(max_concurrent_streams),
          "Calls at once on one connection, 1 to 1048576.");
ABSL_FLAG(absl::Duration, max_connection_age, D(max_connection_age),
          "Connections older than this are asked to reconnect, so that load balancers can "
          "rebalance; at least 1s, inf: never.");
ABSL_FLAG(absl::Duration, handshake_timeout, D(handshake_timeout),
          "How long a new connection may take to say which protocol it speaks, 10ms to 1h.");
ABSL_FLAG(absl::Duration, idle_timeout, D(idle_timeout),
          "Connections without a request are closed after this time; at least 10ms, inf: never.");
ABSL_FLAG(absl::Duration, keepalive_time, D(keepalive_time),
          "A connection that is silent for this long is asked whether its peer still lives, over "
          "gRPC by HTTP/2, over HTTP by TCP, in whole seconds; 10ms to 24h.");
ABSL_FLAG(absl::Duration, keepalive_timeout, D(keepalive_timeout),
          "A connection whose peer then says nothing for this long is closed; 10ms to 1h.");
// Cache and batching.
ABSL_FLAG(
    ArenaSize, kv_cache_bytes, D(kv_cache_bytes),
    "Size of the KV-cache arena: 2MiB to 1TiB, such as 512MiB or 2GiB; on a GPU also a share, "
    "such as 80%, of the memory that the model and --image_cache_bytes leave. auto: 85% of "
    "it, else 1GiB.");
ABSL_FLAG(std::string, kv_policy, D(kv_policy),
          "KV policy of requests that name none, in its text form.");
ABSL_FLAG(std::vector<std::string>, kv_policy_allow, D(kv_policy_allow),
          "Names of the policies that requests may choose, separated by commas; empty: all.");
ABSL_FLAG(bool, allow_explain, D(allow_explain),
          "Let requests ask where the KV cache holds each of their tokens (tessera explain); a "
          "reply then grows by a byte for each token and layer.");
ABSL_FLAG(ByteSize, image_cache_bytes, D_BYTES(image_cache_bytes),
          "Size of the cache of encoded images, 0 to 1TiB; 0: none.");
ABSL_FLAG(bool, prefix_cache, D(prefix_cache), "Reuse the KV pages of prompts that start alike.");
ABSL_FLAG(int32_t, max_batch_tokens, D(max_batch_tokens),
          "Tokens of one engine step, prefill chunks and decodes together; at least "
          "--max_sequences.");
ABSL_FLAG(int32_t, max_sequences, D(max_sequences), "Requests running at once, 1 to 65536.");
ABSL_FLAG(int32_t, max_queue, D(max_queue),
          "Requests waiting at once, 1 to 1048576; more are refused with RESOURCE_EXHAUSTED.");
// Limits on one request.
ABSL_FLAG(
    int32_t, default_max_tokens, D(default_max_tokens),
    "Most tokens of an answer if the request gives no number; less if the context leaves less.");
ABSL_FLAG(int32_t, max_images, D(max_images), "Images of one request, 0 to 4096.");
ABSL_FLAG(ByteSize, max_image_bytes, D_BYTES(max_image_bytes),
          "Largest compressed image, 64B to 2GiB - 1.");
ABSL_FLAG(int64_t, max_image_pixels, D(max_image_pixels),
          "Largest image in pixels (width times height), 1 to 2^32.");
// Images named by URL.
ABSL_FLAG(
    std::vector<std::string>, image_url_hosts, D(image_url_hosts),
    "Hosts from which the server fetches images that requests name by https URL, separated by "
    "commas: images.example.com, *.cdn.example.com (every name below it), an address, each "
    "with :port if it is not 443; empty: none are fetched.");
ABSL_FLAG(bool, image_url_allow_private, D(image_url_allow_private),
          "Let those hosts have private addresses (loopback, 10.0.0.0/8 and the like). Dangerous: "
          "whoever controls the name of a listed host can then point it at your own machines.");
ABSL_FLAG(std::string, image_url_ca_file, D(image_url_ca_file),
          "File of the certificates that sign those hosts' certificates; default: the system's.");
ABSL_FLAG(absl::Duration, image_url_timeout, D(image_url_timeout),
          "How long fetching one image may take, redirects included, 10ms to 10m.");
ABSL_FLAG(ByteSize, max_text_bytes, D_BYTES(max_text_bytes),
          "Text of one request, all parts together, 1B to 2GiB - 1.");
ABSL_FLAG(absl::Duration, max_request_time, D(max_request_time),
          "A request's deadline when the client's is later or absent; at least 1ms, inf: none.");
ABSL_FLAG(absl::Duration, stall_timeout, D(stall_timeout),
          "A request whose client reads nothing for this long is cancelled, 100ms to 24h.");
ABSL_FLAG(int32_t, decode_threads, D(decode_threads),
          "Threads that decode images and tokenize prompts, 1 to 256.");
ABSL_FLAG(int32_t, image_url_threads, D(image_url_threads),
          "Threads that fetch images, and so images fetched at once, 1 to 256.");
// Lifecycle.
ABSL_FLAG(absl::Duration, drain_delay, D(drain_delay),
          "How long new requests are still taken after SIGTERM, while load balancers notice that "
          "the server is not ready; 0 to 1h.");
ABSL_FLAG(absl::Duration, drain_timeout, D(drain_timeout),
          "How long running requests may go on after that before they are ended with "
          "UNAVAILABLE; 0 to 24h.");
ABSL_FLAG(absl::Duration, liveness_timeout, D(liveness_timeout),
          "The health service \"live\" fails when the engine's loop has not turned for this long, "
          "1s to 24h; must exceed the longest step.");
// Log.
ABSL_FLAG(std::string, log_format, "json", "json or text.");
ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error.");
ABSL_FLAG(std::string, log_file, D(log.file), "File to append to. Default: standard error.");

#undef D
#undef D_BYTES

namespace tessera {
namespace {

bool IsOurs(absl::string_view file) { return absl::EndsWith(file, "server/process/flags.cc"); }

std::string ProgramPath() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length <= 0 ? "" : std::string(path, length);
}

std::string BaseName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

absl::StatusOr<LogOptions> LogOptionsFromFlags() {
  LogOptions log;
  const auto format = ParseLogFormat(absl::GetFlag(FLAGS_log_format));
  if (!format.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--log_format=", format.status().message()));
  }
  const auto level = ParseLogLevel(absl::GetFlag(FLAGS_log_level));
  if (!level.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--log_level=", level.status().message()));
  }
  log.format = *format;
  log.level = *level;
  log.file = absl::GetFlag(FLAGS_log_file);
  return log;
}

void SetListenersFromFlags(ServerConfig* c) {
  c->listen = absl::GetFlag(FLAGS_listen);
  c->admin_listen = absl::GetFlag(FLAGS_admin_listen);
  c->http_listen = absl::GetFlag(FLAGS_http_listen);
  c->http_max_connections = absl::GetFlag(FLAGS_http_max_connections);
  c->metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  c->allow_plaintext = absl::GetFlag(FLAGS_allow_plaintext);
  c->tls.cert = absl::GetFlag(FLAGS_tls_cert);
  c->tls.key = absl::GetFlag(FLAGS_tls_key);
  c->tls.client_ca = absl::GetFlag(FLAGS_tls_client_ca);
  c->token_file = absl::GetFlag(FLAGS_token_file);
  c->reflection = absl::GetFlag(FLAGS_reflection);
  c->max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes).bytes;
  c->rpc_memory_bytes = absl::GetFlag(FLAGS_rpc_memory_bytes).bytes;
  c->max_concurrent_streams = absl::GetFlag(FLAGS_max_concurrent_streams);
  c->max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  c->handshake_timeout = absl::GetFlag(FLAGS_handshake_timeout);
  c->idle_timeout = absl::GetFlag(FLAGS_idle_timeout);
  c->keepalive_time = absl::GetFlag(FLAGS_keepalive_time);
  c->keepalive_timeout = absl::GetFlag(FLAGS_keepalive_timeout);
}

absl::StatusOr<ServerConfig> ConfigFromFlags() {
  ServerConfig c;
  c.model = absl::GetFlag(FLAGS_model);
  if (c.model.empty()) c.model = FindDemoModel(ProgramPath());
  c.model_name = absl::GetFlag(FLAGS_model_name);
  if (c.model_name.empty()) c.model_name = BaseName(c.model);
  c.device = absl::GetFlag(FLAGS_device);
  c.load_format = absl::GetFlag(FLAGS_load_format);
  c.cpu_threads = absl::GetFlag(FLAGS_cpu_threads);
  c.context_tokens = absl::GetFlag(FLAGS_context_tokens);
  SetListenersFromFlags(&c);
  c.kv_cache_bytes = absl::GetFlag(FLAGS_kv_cache_bytes);
  c.kv_policy = absl::GetFlag(FLAGS_kv_policy);
  c.kv_policy_allow = absl::GetFlag(FLAGS_kv_policy_allow);
  c.allow_explain = absl::GetFlag(FLAGS_allow_explain);
  c.image_cache_bytes = absl::GetFlag(FLAGS_image_cache_bytes).bytes;
  c.prefix_cache = absl::GetFlag(FLAGS_prefix_cache);
  c.max_batch_tokens = absl::GetFlag(FLAGS_max_batch_tokens);
  c.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  c.max_queue = absl::GetFlag(FLAGS_max_queue);
  c.default_max_tokens = absl::GetFlag(FLAGS_default_max_tokens);
  c.max_images = absl::GetFlag(FLAGS_max_images);
  c.max_image_bytes = absl::GetFlag(FLAGS_max_image_bytes).bytes;
  c.max_image_pixels = absl::GetFlag(FLAGS_max_image_pixels);
  c.max_text_bytes = absl::GetFlag(FLAGS_max_text_bytes).bytes;
  c.max_request_time = absl::GetFlag(FLAGS_max_request_time);
  c.stall_timeout = absl::GetFlag(FLAGS_stall_timeout);
  c.image_url_hosts = absl::GetFlag(FLAGS_image_url_hosts);
  c.image_url_allow_private = absl::GetFlag(FLAGS_image_url_allow_private);
  c.image_url_ca_file = absl::GetFlag(FLAGS_image_url_ca_file);
  c.image_url_timeout = absl::GetFlag(FLAGS_image_url_timeout);
  c.image_url_threads = absl::GetFlag(FLAGS_image_url_threads);
  c.decode_threads = absl::GetFlag(FLAGS_decode_threads);
  c.drain_delay = absl::GetFlag(FLAGS_drain_delay);
  c.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  c.liveness_timeout = absl::GetFlag(FLAGS_liveness_timeout);
  ASSIGN_OR_RETURN(c.log, LogOptionsFromFlags());
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (IsOurs(flag->Filename())) c.effective[std::string(name)] = flag->CurrentValue();
  }
  c.effective["model"] = c.model;
  c.effective["model_name"] = c.model_name;
  return c;
}

}  // namespace

std::string FindDemoModel(const std::string& program_path) {
  const std::string dir = program_path.substr(0, program_path.rfind('/') + 1);
  for (const char* relative : {"models/demo", "../share/tessera/models/demo",
                               "../../../models/demo" /* build/<preset>/bin */}) {
    const std::string found = absl::StrCat(dir, relative);
    if (access(absl::StrCat(found, "/config.json").c_str(), R_OK) != 0) continue;
    char resolved[PATH_MAX];
    if (realpath(found.c_str(), resolved) != nullptr) return resolved;
  }
  return "";
}

absl::StatusOr<ServerConfig> ParseFlags(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "serves a LLaVA-family vision-language model over gRPC.\n\n"
      "  tesserad --model=/models/llava-1.5-7b-hf --kv_cache_bytes=4GiB\n\n"
      "A file of flags, one a line, is the configuration file: --flagfile=/etc/tesserad.flags.\n"
      "SIGTERM drains and ends with exit code 0; a second one hurries.");
  absl::FlagsUsageConfig usage;
  // Without these predicates Abseil's --help shows flags of main.cc only, that is none.
  usage.contains_help_flags = IsOurs;
  usage.contains_helpshort_flags = IsOurs;
  usage.contains_helppackage_flags = IsOurs;
  usage.version_string = [] { return absl::StrCat("tesserad ", Version(), "\n"); };
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("\"", rest[1], "\" is not a flag"));
  }
  ASSIGN_OR_RETURN(ServerConfig config, ConfigFromFlags());
  RETURN_IF_ERROR(Validate(config));
  return config;
}

}  // namespace tessera
