// Fetches the images that requests name by URL, on its own threads.
//
// A URL is followed if its host is on the operator's list and every address of that host is
// allowed. The connection goes to one of the validated addresses, so a name that changes its
// meaning a moment later changes nothing. Each of at most three redirects is validated in the same
// way. Time, the bytes of an image and the bytes of a request are bounded. Callers get errors
// without addresses. The log has addresses and hosts, but never paths, which may hold secrets.
// Threads: safe. Lifetime: outlives the worker pool that continues the requests.
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
  // Returns all addresses of a name, in the order to try them. The text of an error is for the log.
  using Resolver = std::function<absl::StatusOr<std::vector<IpAddress>>(const std::string& host)>;
  static absl::StatusOr<std::vector<IpAddress>> ResolveBySystem(const std::string& host);

  // Takes the --image_url_* settings. INVALID_ARGUMENT and FAILED_PRECONDITION name the flag.
  static absl::StatusOr<std::unique_ptr<ImageFetcher>> Make(const ServerConfig& config,
                                                            FetchCounters* counters, Logger* log,
                                                            Resolver resolver = ResolveBySystem);

  ~ImageFetcher() { Stop(); }

  // The request that needs the images.
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

  // Cancels running fetches and rejects later ones. Waits for a name that is being resolved. Called
  // from one thread.
  void Stop();

  const UrlRules& rules() const { return rules_; }

 private:
  struct Batch;
  ImageFetcher(const ServerConfig& config, UrlRules rules, HttpsClient client,
               FetchCounters* counters, Logger* log, Resolver resolver);
  void FetchOne(const ImageDownload& image, Batch* batch);
  // Follows redirects from the first URL to the image or the error.
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
