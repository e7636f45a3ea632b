// The steps of every request on its way into the engine, over gRPC or HTTP.
//
// Errors are as clients see them, with field paths and RetryInfo. Threads: safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request/request.h"
#include "server/api/parsed_request.h"
#include "server/images/image_fetcher.h"
#include "server/request/service_context.h"
#include "tessera/v1/inference.pb.h"

namespace tessera {

// Returns an id that is unique in this process, and almost surely among processes.
std::string NewRequestId();

// The error of a request for which no worker is free.
absl::Status TooManyToPrepare();

// Parses the request, unless the server takes no work at `received`, and holds it to the limits of
// the caller's token. Cheap: no image is decoded and no text tokenized.
absl::StatusOr<ParsedRequest> AdmitRequest(const ServiceContext& services, const Lease& lease,
                                           v1::GenerateRequest in, absl::Time received);

// Adds the images of `prompt` that are named by URL. It must stay where it is until they are
// fetched.
void AddDownloads(ParsedPrompt* prompt, std::vector<ImageDownload>* downloads);

// Fetches images, then calls `next` with OK on a worker, or with the error on any thread.
void FetchImages(const ServiceContext& services, std::vector<ImageDownload> downloads,
                 ImageFetcher::Caller caller, std::function<void(absl::Status)> next);

// Decodes the images and builds the prompt, which takes milliseconds: call it on a worker.
// RESOURCE_EXHAUSTED if there is no memory for it.
absl::StatusOr<Request> BuildRequest(const ServiceContext& services, ParsedRequest parsed);

// Returns work(), or RESOURCE_EXHAUSTED if it runs out of memory: one request's buffers may be
// large, and they are free again by then.
absl::Status WithinMemory(const std::function<absl::Status()>& work);

}  // namespace tessera
