// The way of a request into the engine, the same for gRPC and HTTP.
//
// Errors are as clients see them: field paths, RetryInfo. Threads: safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request/request.h"
#include "server/images/image_fetcher.h"
#include "server/request/service_context.h"
#include "tessera/v1/inference.pb.h"

namespace tessera {

// Unique in this process by a counter, and among processes by a random start.
std::string NewRequestId();

// The error of a request for whose pictures and prompt no worker is free.
absl::Status TooManyToPrepare();

// Cheap checks (views only), before the request waits for a worker: whether work is taken now, and
// every field that needs neither a picture nor the tokenizer, within what the caller's token bears.
absl::StatusOr<Request> CheckRequest(const ServiceContext& services, const Grant& grant,
                                     const v1::GenerateRequest& in, absl::Time received,
                                     absl::Time deadline);

// Between the two, for requests with NamesImageUrls that have passed CheckRequest: fetches those
// pictures, then calls `next` with OK on a worker, or with the error on any thread. `requests` stay
// as they are until then.
void FetchImages(const ServiceContext& services, const std::vector<v1::GenerateRequest*>& requests,
                 ImageFetcher::Caller caller, std::function<void(absl::Status)> next);

// On a worker: decodes the pictures, builds the prompt and fills what depends on its length.
absl::Status BuildPrompt(const ServiceContext& services, const Grant& grant,
                         const v1::GenerateRequest& in, Request* request);

// work(), or RESOURCE_EXHAUSTED where there is no memory for it: one request's buffers may be
// large, and what it has taken is free again by then.
absl::Status WithinMemory(const std::function<absl::Status()>& work);

}  // namespace tessera
