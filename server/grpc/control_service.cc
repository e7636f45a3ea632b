#include "server/grpc/control_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/version.h"
#include "cache/policies/registry.h"
#include "kernels/layout/page_layout.h"
#include "server/api/error_details.h"
#include "server/grpc/unary_call.h"
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "server/process/flags.h"
#include "server/process/lifecycle.h"

namespace tessera {
namespace {

// Grows when a client could want to know that the messages have changed.
constexpr int kSchemaRevision = 1;

v1::GetServerInfoResponse::State ToProto(Lifecycle::State state) {
  switch (state) {
    case Lifecycle::State::kStarting:
      return v1::GetServerInfoResponse::STATE_STARTING;
    case Lifecycle::State::kServing:
      return v1::GetServerInfoResponse::STATE_SERVING;
    case Lifecycle::State::kDraining:
      return v1::GetServerInfoResponse::STATE_DRAINING;
    case Lifecycle::State::kStopped:
      return v1::GetServerInfoResponse::STATE_STOPPED;
  }
  return v1::GetServerInfoResponse::STATE_UNSPECIFIED;
}

int64_t Raw16BytesPerToken(const KvGeometry& geometry) {
  return PageBytes(Format::kRaw16, geometry) / PageTokens(Format::kRaw16) * geometry.layers;
}

void FillModelInfo(const ServiceContext& services, v1::GetModelInfoResponse* out) {
  const Runtime& runtime = *services.runtime;
  const ModelConfig& model = runtime.model;
  out->set_name(model.name);
  out->set_architecture(model.architecture);
  out->set_context_tokens(runtime.context_tokens);
  out->set_vocab_size(model.text.vocab);
  out->set_tokens_per_image(model.tokens_per_image());
  out->set_max_images(services.config->max_images);
  out->set_image_side(model.processor.crop);
  out->set_chat_template(model.chat_template);
  out->set_parameters(runtime.parameters);
  out->set_dtype(DTypeName(model.dtype));
  out->set_kv_bytes_per_token(Raw16BytesPerToken(model.text.kv_geometry()));
  const std::vector<std::string>& allowed = services.config->kv_policy_allow;
  for (const PolicyInfo& info : PolicyTable()) {
    if (allowed.empty() || std::find(allowed.begin(), allowed.end(), info.name) != allowed.end()) {
      out->add_kv_policies(info.name);
    }
  }
  out->set_default_kv_policy(services.rules.default_policy->Text());
  out->set_supports_images(services.config->max_images > 0);
  out->set_supports_logprobs(true);
  out->set_supports_prefix_cache(services.config->prefix_cache);
}

void FillCacheStats(const ServiceContext& services, v1::GetCacheStatsResponse* out) {
  const EngineLoad load = services.runtime->engine->Load();
  const KvGeometry geometry = services.runtime->model.text.kv_geometry();
  for (int i = 0; i < kNumFormats; ++i) {
    const Format format = static_cast<Format>(i);
    auto* stats = out->add_formats();
    stats->set_format(FormatName(format));
    stats->set_pages(load.pages_by_format[i]);
    stats->set_bytes(load.pages_by_format[i] * PageBytes(format, geometry));
  }
  out->set_total_bytes(load.kv_bytes_total);
  out->set_used_bytes(load.kv_bytes_used);
  out->set_reclaimable_bytes(load.kv_bytes_reclaimable);
  out->set_stranded_bytes(load.kv_bytes_stranded);
  out->set_prefix_blocks(load.prefix_blocks);
  const auto count = [&services](Metric metric) {
    return static_cast<int64_t>(services.metrics->Value(metric));
  };
  out->set_prefix_lookup_tokens(count(Metric::kPrefixLookupTokens));
  out->set_prefix_hit_tokens(count(Metric::kPrefixHitTokens));
  out->set_image_cache_bytes(load.image_cache_bytes);
  out->set_image_cache_entries(load.image_cache_entries);
  out->set_image_cache_lookups(count(Metric::kImageLookups));
  out->set_image_cache_hits(count(Metric::kImageHits));
}

}  // namespace

grpc::ServerUnaryReactor* ControlService::GetServerInfo(grpc::CallbackServerContext* context,
                                                        const v1::GetServerInfoRequest*,
                                                        v1::GetServerInfoResponse* response) {
  return RunUnary(*services_, nullptr, context, "GetServerInfo", Permission::kAdmin,
                  [this, response] {
                    response->set_version(Version());
                    response->set_state(ToProto(services_->lifecycle->state()));
                    response->set_uptime_seconds(absl::ToDoubleSeconds(SteadyNow() - started_));
                    response->set_device(device_);
                    response->mutable_flags()->insert(services_->config->effective.begin(),
                                                      services_->config->effective.end());
                    response->set_schema_revision(kSchemaRevision);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* ControlService::GetModelInfo(grpc::CallbackServerContext* context,
                                                       const v1::GetModelInfoRequest*,
                                                       v1::GetModelInfoResponse* response) {
  return RunUnary(*services_, nullptr, context, "GetModelInfo", Permission::kAdmin,
                  [this, response] {
                    RETURN_IF_ERROR(services_->lifecycle->CheckLoaded());
                    FillModelInfo(*services_, response);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* ControlService::GetLoad(grpc::CallbackServerContext* context,
                                                  const v1::GetLoadRequest*,
                                                  v1::GetLoadResponse* response) {
  return RunUnary(*services_, nullptr, context, "GetLoad", Permission::kAdmin, [this, response] {
    RETURN_IF_ERROR(services_->lifecycle->CheckLoaded());
    const EngineApi& engine = *services_->runtime->engine;
    const EngineLoad load = engine.Load();
    response->set_running(load.running);
    response->set_waiting(load.waiting);
    response->set_max_queue(services_->config->max_queue);
    response->set_kv_bytes_used(load.kv_bytes_used);
    response->set_kv_bytes_total(load.kv_bytes_total);
    response->set_kv_usage(load.kv_bytes_total == 0 ? 0.0
                                                    : static_cast<double>(load.kv_bytes_used) /
                                                          static_cast<double>(load.kv_bytes_total));
    response->set_heartbeat_age_seconds(absl::ToDoubleSeconds(engine.HeartbeatAge()));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ControlService::GetCacheStats(grpc::CallbackServerContext* context,
                                                        const v1::GetCacheStatsRequest*,
                                                        v1::GetCacheStatsResponse* response) {
  return RunUnary(*services_, nullptr, context, "GetCacheStats", Permission::kAdmin,
                  [this, response] {
                    RETURN_IF_ERROR(services_->lifecycle->CheckLoaded());
                    FillCacheStats(*services_, response);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* ControlService::Abort(grpc::CallbackServerContext* context,
                                                const v1::AbortRequest* request,
                                                v1::AbortResponse*) {
  return RunUnary(*services_, nullptr, context, "Abort", Permission::kAdmin, [this, request] {
    RETURN_IF_ERROR(CheckRequestId("request_id", request->request_id()));
    // The registry also has requests whose images are still being decoded; ending one cancels the
    // engine's side.
    const absl::Status reason = absl::CancelledError("the request was aborted by the operator");
    if (registry_->End(request->request_id(), reason)) return absl::OkStatus();
    return FieldError("request_id", absl::StrCat("no live request ", request->request_id()),
                      reason::kRequestNotFound, absl::StatusCode::kNotFound);
  });
}

grpc::ServerUnaryReactor* ControlService::FlushCache(grpc::CallbackServerContext* context,
                                                     const v1::FlushCacheRequest*,
                                                     v1::FlushCacheResponse*) {
  return RunUnary(*services_, nullptr, context, "FlushCache", Permission::kAdmin, [this] {
    RETURN_IF_ERROR(services_->lifecycle->CheckLoaded());
    services_->runtime->engine->FlushCaches();
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ControlService::Drain(grpc::CallbackServerContext* context,
                                                const v1::DrainRequest*, v1::DrainResponse*) {
  return RunUnary(*services_, nullptr, context, "Drain", Permission::kAdmin, [this] {
    services_->log->Write(LogLevel::kInfo, "drain asked by Control");
    services_->lifecycle->BeginDrain(SteadyNow());
    return absl::OkStatus();
  });
}

}  // namespace tessera
