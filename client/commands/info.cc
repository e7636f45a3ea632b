// `tessera info`: shows the server, model, load and cache, as the admin listener reports them.
#include <google/protobuf/util/json_util.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "client/cli/format.h"
#include "client/cli/options.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/rpc/connection.h"
#include "client/rpc/rpc_error.h"
#include "grpcpp/client_context.h"
#include "tessera/v1/control.grpc.pb.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Shows the state, model, load and cache of a server. They come from its admin listener "
    "(tesserad --admin_listen), which has a port of its own. So --address is the address of the "
    "admin listener here, and --admin_address is another name for it.";

struct Snapshot {
  v1::GetServerInfoResponse server;
  v1::GetModelInfoResponse model;
  v1::GetLoadResponse load;
  v1::GetCacheStatsResponse cache;
};

grpc::Status Fetch(v1::Control::Stub* stub, absl::Duration timeout, Snapshot* out) {
  const auto call = [&](auto method, const auto& request, auto* response) {
    grpc::ClientContext context;
    SetTimeout(timeout, &context);
    return (stub->*method)(&context, request, response);
  };
  grpc::Status status =
      call(&v1::Control::Stub::GetServerInfo, v1::GetServerInfoRequest(), &out->server);
  if (!status.ok()) return status;
  status = call(&v1::Control::Stub::GetModelInfo, v1::GetModelInfoRequest(), &out->model);
  if (!status.ok()) return status;
  status = call(&v1::Control::Stub::GetLoad, v1::GetLoadRequest(), &out->load);
  if (!status.ok()) return status;
  return call(&v1::Control::Stub::GetCacheStats, v1::GetCacheStatsRequest(), &out->cache);
}

// Prints a title, and rows "name  value" below it.
class Section {
 public:
  Section(const Io& io, absl::string_view title) : io_(io) {
    *io.out << Style(io.out_terminal).Bold(title) << "\n";
  }
  void Row(absl::string_view name, absl::string_view value) {
    *io_.out << absl::StrFormat("  %-24s %s\n", name, value);
  }

 private:
  const Io& io_;
};

std::string YesNo(bool value) { return value ? "yes" : "no"; }

// Returns text such as "12 of 40 (30.0%)".
std::string Share(int64_t part, int64_t whole) {
  std::string text = absl::StrCat(FormatCount(part), " of ", FormatCount(whole));
  if (whole > 0) absl::StrAppendFormat(&text, " (%.1f%%)", 100.0 * part / whole);
  return text;
}

void ShowServer(const v1::GetServerInfoResponse& server, const Io& io) {
  std::string state = v1::GetServerInfoResponse::State_Name(server.state());
  if (state.rfind("STATE_", 0) == 0) state.erase(0, 6);
  Section section(io, "server");
  section.Row("version", server.version());
  section.Row("state", state.empty() ? absl::StrCat(server.state()) : state);
  section.Row("up for", FormatSeconds(server.uptime_seconds()));
  section.Row("device", server.device());
  section.Row("schema revision", absl::StrCat(server.schema_revision()));
  for (const auto& [name, value] :
       std::map<std::string, std::string>(server.flags().begin(), server.flags().end())) {
    section.Row(absl::StrCat("--", name), value);
  }
}

void ShowModel(const v1::GetModelInfoResponse& model, const Io& io) {
  Section section(io, "model");
  section.Row("name", model.name());
  section.Row("architecture", model.architecture());
  section.Row("parameters", FormatCount(model.parameters()));
  section.Row("weights", model.dtype());
  section.Row("context", absl::StrCat(FormatCount(model.context_tokens()), " tokens"));
  section.Row("vocabulary", FormatCount(model.vocab_size()));
  section.Row("images", absl::StrCat("at most ", model.max_images(), ", ", model.tokens_per_image(),
                                     " tokens each, side ", model.image_side()));
  section.Row("chat template", model.chat_template());
  section.Row("KV at 16 bit", absl::StrCat(FormatBytes(model.kv_bytes_per_token()), " a token"));
  section.Row("KV policies", absl::StrJoin(model.kv_policies(), ", "));
  section.Row("default KV policy", model.default_kv_policy());
  section.Row("accepts images", YesNo(model.supports_images()));
  section.Row("logprobs", YesNo(model.supports_logprobs()));
  section.Row("prefix cache", YesNo(model.supports_prefix_cache()));
  section.Row("structured output", YesNo(model.supports_structured_output()));
  section.Row("LoRA", YesNo(model.supports_lora()));
}

void ShowLoad(const v1::GetLoadResponse& load, const Io& io) {
  Section section(io, "load");
  section.Row("running", absl::StrCat(load.running()));
  section.Row("waiting", absl::StrCat(load.waiting(), " (at most ", load.max_queue(), ")"));
  section.Row("KV in use",
              absl::StrFormat("%s of %s (%.1f%%)", FormatBytes(load.kv_bytes_used()),
                              FormatBytes(load.kv_bytes_total()), 100 * load.kv_usage()));
  section.Row("last heartbeat", absl::StrCat(FormatSeconds(load.heartbeat_age_seconds()), " ago"));
}

void ShowCache(const v1::GetCacheStatsResponse& cache, const Io& io) {
  {
    Section section(io, "cache");
    section.Row("total", FormatBytes(cache.total_bytes()));
    section.Row("used", FormatBytes(cache.used_bytes()));
    section.Row("reclaimable", FormatBytes(cache.reclaimable_bytes()));
    section.Row("stranded", FormatBytes(cache.stranded_bytes()));
    section.Row("prefix blocks", FormatCount(cache.prefix_blocks()));
    section.Row("prefix hit tokens",
                Share(cache.prefix_hit_tokens(), cache.prefix_lookup_tokens()));
    section.Row("image features",
                absl::StrCat(FormatCount(cache.image_cache_entries()), " entries, ",
                             FormatBytes(cache.image_cache_bytes())));
    section.Row("image feature hits", Share(cache.image_cache_hits(), cache.image_cache_lookups()));
  }
  if (cache.formats_size() == 0) return;
  Table table({"  page format", "pages", "bytes"});
  for (const auto& format : cache.formats()) {
    table.AddRow({absl::StrCat("  ", format.format()), FormatCount(format.pages()),
                  FormatBytes(format.bytes())});
  }
  *io.out << table.Render();
}

// Prints {"server": ..., "model": ..., "load": ..., "cache": ...} with the proto's field names.
bool PrintJson(const Snapshot& snapshot, const Io& io) {
  google::protobuf::util::JsonPrintOptions print;
  print.always_print_primitive_fields = true;
  print.preserve_proto_field_names = true;
  const std::pair<const char*, const google::protobuf::Message*> parts[] = {
      {"server", &snapshot.server},
      {"model", &snapshot.model},
      {"load", &snapshot.load},
      {"cache", &snapshot.cache}};
  std::string line;
  for (const auto& [name, message] : parts) {
    std::string json;
    if (!google::protobuf::util::MessageToJsonString(*message, &json, print).ok()) return false;
    absl::StrAppend(&line, line.empty() ? "{" : ",", "\"", name, "\":", json);
  }
  *io.out << line << "}\n";
  return true;
}

}  // namespace

int RunInfo(const Args& args, const Io& io) {
  Endpoint endpoint(kDefaultAdminAddress);
  std::string admin_address;
  bool json = false;
  absl::Duration timeout = absl::Seconds(5);
  Options options("info", kSummary);
  endpoint.Register(&options, "the server's admin listener");
  options.Add("admin_address", "HOST:PORT", &admin_address, "the same as --address");
  options.Add("json", &json, "print one JSON line");
  options.Add("timeout", &timeout, "deadline of each call; 0 is no limit");
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  if (options.given("admin_address")) {
    if (options.given("address")) {
      return options.UsageError(
          absl::InvalidArgumentError("--address and --admin_address are the same: give one"), io);
    }
    endpoint.address = admin_address;
  }
  auto channel = Connect(endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  const auto stub = v1::Control::NewStub(*channel);
  Snapshot snapshot;
  const grpc::Status status = Fetch(stub.get(), timeout, &snapshot);
  if (!status.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(DecodeError(status));
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      *io.err << "  " << endpoint.address
              << " is not an admin listener: tessera info needs the address of tesserad "
              << "--admin_listen (default " << kDefaultAdminAddress << "), not of --listen\n";
    }
    return kExitFailure;
  }
  if (json) return PrintJson(snapshot, io) ? kExitOk : kExitFailure;
  ShowServer(snapshot.server, io);
  ShowModel(snapshot.model, io);
  ShowLoad(snapshot.load, io);
  ShowCache(snapshot.cache, io);
  return kExitOk;
}

}  // namespace tessera::client
