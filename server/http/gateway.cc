#include "server/http/gateway.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/version.h"
#include "base/worker_pool.h"
#include "cache/policies/registry.h"
#include "server/api/error_details.h"
#include "server/http/http_error.h"
#include "server/http/json_members.h"
#include "server/http/openai_writer.h"
#include "server/net/address.h"
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "server/process/flags.h"
#include "server/process/lifecycle.h"
#include "server/request/admission.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;
using Exchange = std::shared_ptr<HttpExchange>;

// The parts of one request to a route.
struct Context {
  const ServiceContext* services;
  RequestRegistry* registry;
  std::string request_id;
  std::shared_ptr<Lease> lease;  // null: not needed (/health), or refused
};

void End(const Context& context, const char* route, const Exchange& exchange,
         HttpResponse response) {
  const int status = response.status;
  context.services->metrics->CountHttp(route, status);
  const LogLevel level = status >= 500 && status != 503 ? LogLevel::kError : LogLevel::kDebug;
  if (context.services->log->Enabled(level)) {
    context.services->log->Write(
        level, "http",
        {{"request_id", context.request_id},
         {"route", route},
         {"status", status},
         {"tenant", context.lease == nullptr ? "" : context.lease->tenant()},
         {"peer", exchange->request().peer}});
  }
  response.headers.emplace_back("X-Request-Id", context.request_id);
  if (context.lease != nullptr) context.lease->Release();
  exchange->Respond(std::move(response));
}

HttpResponse JsonResponse(const Json& json) {
  HttpResponse response;
  response.body = DumpJson(json);
  return response;
}

// A route that answers at once.
using Answer = absl::StatusOr<HttpResponse> (*)(const Context&, HttpRequest&);
template <Answer answer>
void Now(const Context& context, const char* route, Exchange exchange) {
  absl::StatusOr<HttpResponse> response = answer(context, exchange->request());
  End(context, route, exchange,
      response.ok() ? *std::move(response) : ErrorResponse(response.status(), context.request_id));
}
// A route that may take milliseconds.
template <Answer answer>
void OnWorker(const Context& context, const char* route, Exchange exchange) {
  if (!context.services->workers->TrySubmit(
          [context, route, exchange] { Now<answer>(context, route, exchange); })) {
    End(context, route, exchange, ErrorResponse(TooManyToPrepare(), context.request_id));
  }
}

template <OpenAiKind kind>
void Generate(const Context& context, const char*, Exchange exchange) {
  OpenAiWriter::Start(context.services, context.registry, context.lease, kind, context.request_id,
                      std::move(exchange));
}

absl::StatusOr<HttpResponse> Health(const Context& context, HttpRequest&) {
  const Lifecycle& lifecycle = *context.services->lifecycle;
  static constexpr const char* kNames[] = {"starting", "serving", "draining", "stopped"};
  const bool serving = lifecycle.state() == Lifecycle::State::kServing;
  HttpResponse response = JsonResponse(
      {{"status", kNames[static_cast<int>(lifecycle.state())]}, {"live", lifecycle.live()}});
  if (!serving || !lifecycle.live()) response.status = 503;
  return response;
}

absl::StatusOr<HttpResponse> ServerVersion(const Context&, HttpRequest&) {
  return JsonResponse({{"version", Version()}});
}

absl::StatusOr<HttpResponse> MetricsText(const Context& context, HttpRequest&) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = context.services->metrics->Scrape();
  return response;
}

absl::StatusOr<HttpResponse> Models(const Context& context, HttpRequest& request) {
  const ServiceContext& services = *context.services;
  RETURN_IF_ERROR(services.lifecycle->CheckLoaded());
  const Runtime& runtime = *services.runtime;
  Json policies = Json::array();
  const std::vector<std::string>& allowed = services.config->kv_policy_allow;
  for (const PolicyInfo& info : PolicyTable()) {
    if (allowed.empty() || std::find(allowed.begin(), allowed.end(), info.name) != allowed.end()) {
      policies.push_back(info.name);
    }
  }
  const Json model = {{"id", runtime.model.name},
                      {"object", "model"},
                      {"created", runtime.loaded_unix_seconds},
                      {"owned_by", "tessera"},
                      {"max_model_len", runtime.context_tokens},
                      {"kv_policies", std::move(policies)},
                      {"default_kv_policy", services.rules.default_policy->Text()}};
  absl::string_view id = request.path;
  if (!absl::ConsumePrefix(&id, "/v1/models/")) {
    return JsonResponse({{"object", "list"}, {"data", Json::array({model})}});
  }
  if (id == runtime.model.name) return JsonResponse(model);
  return ModelNotFound(runtime.model.name);
}

absl::StatusOr<HttpResponse> Tokenize(const Context& context, HttpRequest& request) {
  const ServiceContext& services = *context.services;
  RETURN_IF_ERROR(services.lifecycle->CheckAccepting(SteadyNow()));
  const Runtime& runtime = *services.runtime;
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseOpenAiJson(request.body));
  std::vector<int32_t> ids;
  if (FindMember(json, "messages") != nullptr) {  // as a chat completion tokenizes them
    ASSIGN_OR_RETURN(OpenAiRequest chat,
                     ParseOpenAiRequest(OpenAiKind::kChat, request.body, runtime.model));
    ASSIGN_OR_RETURN(
        ParsedRequest parsed,
        AdmitRequest(services, *context.lease, std::move(chat.prompts.front()), SteadyNow()));
    if (!parsed.prompt.urls.empty()) {
      const size_t image = parsed.prompt.urls.front().image;
      return FieldError(absl::StrCat(parsed.prompt.paths.images[image], ".url"),
                        "only answers fetch images: send the image itself");
    }
    ASSIGN_OR_RETURN(Request built, BuildRequest(services, std::move(parsed)));
    ids = std::move(built.prompt.ids);
  } else {
    JsonMembers members(json, "");
    std::string text;
    bool special = true;
    if (members.Find("prompt") == nullptr) return FieldError("prompt", "is missing");
    RETURN_IF_ERROR(members.String("prompt", [&](std::string v) { text = std::move(v); }));
    RETURN_IF_ERROR(members.Bool("add_special_tokens", [&](bool v) { special = v; }));
    members.Accept("model");
    RETURN_IF_ERROR(members.Finish());
    if (static_cast<int64_t>(text.size()) > services.config->max_text_bytes) {
      return FieldError("prompt",
                        absl::StrCat("longer than ", services.config->max_text_bytes, " bytes"),
                        reason::kLimitExceeded);
    }
    if (special && runtime.tokenizer->add_bos()) ids.push_back(runtime.tokenizer->bos());
    const std::vector<int32_t> rest = runtime.tokenizer->Encode(text, /*first=*/true);
    ids.insert(ids.end(), rest.begin(), rest.end());
  }
  return JsonResponse(
      {{"count", ids.size()}, {"max_model_len", runtime.context_tokens}, {"tokens", ids}});
}

absl::StatusOr<HttpResponse> Detokenize(const Context& context, HttpRequest& request) {
  const ServiceContext& services = *context.services;
  RETURN_IF_ERROR(services.lifecycle->CheckAccepting(SteadyNow()));
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseOpenAiJson(request.body));
  JsonMembers members(json, "");
  const nlohmann::json* tokens = members.Find("tokens");
  members.Accept("model");
  RETURN_IF_ERROR(members.Finish());
  if (tokens == nullptr || !tokens->is_array()) {
    return FieldError("tokens", "want an array of token ids");
  }
  const int vocab = services.runtime->model.text.vocab;
  std::vector<int32_t> ids;
  for (const nlohmann::json& token : *tokens) {
    if (!token.is_number_integer() || token < 0 || token >= vocab) {
      return FieldError("tokens", absl::StrCat("want ids within the vocabulary of ", vocab));
    }
    ids.push_back(token.get<int32_t>());
  }
  return JsonResponse({{"prompt", services.runtime->tokenizer->Decode(ids)}});
}

struct Route {
  const char* method;
  const char* path;                      // also the metric's label
  bool prefix;                           // paths below it too
  std::optional<Permission> permission;  // that a token must bear; none: no token is needed
  void (*handle)(const Context&, const char* route, Exchange);
};
constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", false, Permission::kInference, Generate<OpenAiKind::kChat>},
    {"POST", "/v1/completions", false, Permission::kInference, Generate<OpenAiKind::kCompletion>},
    {"GET", "/v1/models", true, Permission::kAny, Now<Models>},
    {"POST", "/tokenize", false, Permission::kInference, OnWorker<Tokenize>},
    {"POST", "/detokenize", false, Permission::kInference, OnWorker<Detokenize>},
    {"GET", "/health", false, std::nullopt, Now<Health>},
    {"GET", "/version", false, Permission::kAny, Now<ServerVersion>},
    {"GET", "/metrics", false, Permission::kAdmin, OnWorker<MetricsText>},
};

const Route* FindRoute(absl::string_view path) {
  for (const Route& route : kRoutes) {
    absl::string_view rest = path;
    if (!absl::ConsumePrefix(&rest, route.path)) continue;
    if (rest.empty() || (route.prefix && rest.size() > 1 && rest[0] == '/')) return &route;
  }
  return nullptr;
}

}  // namespace

// Runs before the body is read: checks that the token has the route's permission. The permits and
// the rate are checked when the work begins.
std::optional<HttpResponse> Gateway::Refuse(const HttpRequest& head) {
  const Route* route = FindRoute(head.path);
  const std::optional<Permission> permission =
      route == nullptr ? Permission::kAny : route->permission;
  if (!permission.has_value()) return std::nullopt;
  const auto lease = services_->access->Admit(
      head.Headers("authorization"),
      *permission == Permission::kAdmin ? Permission::kAdmin : Permission::kAny, SteadyNow());
  if (lease.ok()) return std::nullopt;
  const char* name = route == nullptr ? "other" : route->path;
  HttpResponse response = ErrorResponse(lease.status(), "");
  services_->metrics->CountHttp(name, response.status);
  if (services_->log->Enabled(LogLevel::kDebug)) {
    services_->log->Write(LogLevel::kDebug, "http",
                          {{"route", name}, {"status", response.status}, {"peer", head.peer}});
  }
  return response;
}

void Gateway::Handle(std::shared_ptr<HttpExchange> exchange) {
  Context context{services_, registry_, std::string(exchange->request().Header("x-request-id")),
                  nullptr};
  const absl::Status id = context.request_id.empty()
                              ? absl::OkStatus()
                              : CheckRequestId("x-request-id", context.request_id);
  if (context.request_id.empty() || !id.ok()) context.request_id = NewRequestId();
  const Route* route = FindRoute(exchange->request().path);
  const char* name = route == nullptr ? "other" : route->path;
  if (!id.ok()) return End(context, name, exchange, ErrorResponse(id, context.request_id));
  if (route == nullptr) {
    return End(context, name, exchange,
               PlainError(404, "this server has no such path; see its README", "not_found"));
  }
  if (exchange->request().method != route->method) {
    HttpResponse response = PlainError(405, absl::StrCat("want ", route->method), "wrong_method");
    response.headers.emplace_back("Allow", route->method);
    return End(context, name, exchange, std::move(response));
  }
  if (route->permission.has_value()) {
    auto lease = services_->access->Admit(exchange->request().Headers("authorization"),
                                          *route->permission, SteadyNow());
    if (!lease.ok()) {
      return End(context, name, exchange, ErrorResponse(lease.status(), context.request_id));
    }
    context.lease = *std::move(lease);
  }
  route->handle(context, name, std::move(exchange));
}

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const std::string& address,
                                                        const ServiceContext* services,
                                                        RequestRegistry* registry,
                                                        const TlsSource* tls) {
  ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address));
  RETURN_IF_ERROR(CheckAddressFree(parsed));
  std::unique_ptr<Gateway> gateway(new Gateway(services, registry));
  HttpServerOptions options;
  options.max_body_bytes = services->config->max_message_bytes;
  options.max_connections = services->config->http_max_connections;
  options.write_timeout = services->config->stall_timeout;
  options.keepalive_time = services->config->keepalive_time;
  options.keepalive_timeout = services->config->keepalive_timeout;
  options.handshake_timeout = services->config->handshake_timeout;
  options.idle_timeout = services->config->idle_timeout;
  options.tls = tls;
  ASSIGN_OR_RETURN(
      gateway->server_,
      HttpServer::Start(
          parsed, options,
          [raw = gateway.get()](const HttpRequest& head) { return raw->Refuse(head); },
          [raw = gateway.get()](Exchange exchange) { raw->Handle(std::move(exchange)); }));
  gateway->address_ = absl::StrCat(parsed.host, ":", gateway->server_->port());
  return gateway;
}

}  // namespace tessera
