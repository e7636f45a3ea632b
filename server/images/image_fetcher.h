// Fetches the pictures that requests name by URL, on threads of its own.
//
// A URL is followed where the operator's list has its host, and every address that the host's name
// resolves to is allowed; the connection goes to one of the addresses that were judged, so a name
// that means something else a moment later changes nothing. Each redirect, at most three, is judged
// in the same way. Time, bytes of a picture and bytes of a request are bounded. Callers hear what
// went wrong without addresses; the log has those, and hosts, but never paths, which may hold
// secrets. Threads: safe. Lifetime: outlives the worker pool that takes requests on.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/worker_pool.h"
#include "server/net/https_client.h"
#include "server/net/https_url.h"
#include "server/observability/counters.h"
#include "server/observability/log.h"
#include "server/process/config.h"

namespace tessera {

// One image to fetch.
struct ImageDownload {
  std::string url;
  std::string path;   // of the URL in the client's request, for errors
  std::string* data;  // gets the bytes; stays where it is until then
};

class ImageFetcher {
 public:
  // All addresses of a name, in the order in which to try them; an error's text is for the log.
  using Resolver = std::function<absl::StatusOr<std::vector<IpAddress>>(const std::string& host)>;
  static absl::StatusOr<std::vector<IpAddress>> ResolveBySystem(const std::string& host);

  // As the config's --image_url_* say; INVALID_ARGUMENT and FAILED_PRECONDITION naming the flag.
  static absl::StatusOr<std::unique_ptr<ImageFetcher>> Make(const ServerConfig& config,
                                                            FetchCounters* counters, Logger* log,
                                                            Resolver resolver = ResolveBySystem);

  ~ImageFetcher() { Stop(); }

  // For whom pictures are fetched.
  struct Caller {
    std::string request_id;
    absl::Time deadline;
    std::function<bool()> gone;  // called from any thread
  };

  // Fills the bytes of each image. Calls `done` once, on any thread, possibly before it returns:
  // OK, or the first error, with the image's path. INVALID_ARGUMENT; RESOURCE_EXHAUSTED for too
  // many bytes or a full queue; CANCELLED; DEADLINE_EXCEEDED. REQUIRES: at least one image.
  void Fetch(std::vector<ImageDownload> images, Caller caller,
             std::function<void(absl::Status)> done);

  // Ends what is under way, and refuses what comes later; a name that is being resolved is waited
  // for. From one thread.
  void Stop();

  const UrlRules& rules() const { return rules_; }

 private:
  struct Batch;
  ImageFetcher(const ServerConfig& config, UrlRules rules, HttpsClient client,
               FetchCounters* counters, Logger* log, Resolver resolver);
  void FetchOne(const ImageDownload& image, Batch* batch);
  // From the first URL to the picture or the error, through redirects.
  HttpsReply Follow(HttpsUrl url, const HttpsLimits& limits) const;

  const UrlRules rules_;
  const HttpsClient client_;
  const Resolver resolver_;
  const absl::Duration timeout_;
  const int64_t max_image_bytes_, max_request_bytes_;
  FetchCounters* const counters_;
  Logger* const log_;
  std::atomic<bool> stopping_{false};
  WorkerPool pool_;  // last: its threads use the rest
};

}  // namespace tessera
