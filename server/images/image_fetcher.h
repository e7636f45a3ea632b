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
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "tessera/v1/inference.pb.h"

namespace tessera {

class ImageFetcher {
 public:
  // All addresses of a name, in the order in which to try them; an error's text is for the log.
  using Resolver = std::function<absl::StatusOr<std::vector<IpAddress>>(const std::string& host)>;
  static absl::StatusOr<std::vector<IpAddress>> ResolveBySystem(const std::string& host);

  // As the config's --image_url_* say; INVALID_ARGUMENT and FAILED_PRECONDITION naming the flag.
  static absl::StatusOr<std::unique_ptr<ImageFetcher>> Make(const ServerConfig& config,
                                                            Metrics* metrics, Logger* log,
                                                            Resolver resolver = ResolveBySystem);

  ~ImageFetcher() { Stop(); }

  // For whom pictures are fetched.
  struct Caller {
    std::string request_id;
    absl::Time deadline;
    std::function<bool()> gone;  // called from any thread
  };

  // Fills the data of each picture of `requests` that has a URL, and clears the URL. Calls `done`
  // once, on any thread, possibly before it returns: OK, or the first error, with the picture's
  // path: INVALID_ARGUMENT, RESOURCE_EXHAUSTED for too many bytes or a full queue, CANCELLED or
  // DEADLINE_EXCEEDED. `requests` stay as they are until then.
  void Fetch(const std::vector<v1::GenerateRequest*>& requests, Caller caller,
             std::function<void(absl::Status)> done);

  // Ends what is under way, and refuses what comes later; a name that is being resolved is waited
  // for. From one thread.
  void Stop();

  const UrlRules& rules() const { return rules_; }

 private:
  struct Batch;
  struct Picture {
    v1::Image* image;
    std::string path;  // in the request
  };
  static std::vector<Picture> PicturesOf(const std::vector<v1::GenerateRequest*>& requests);

  ImageFetcher(const ServerConfig& config, UrlRules rules, HttpsClient client, Metrics* metrics,
               Logger* log, Resolver resolver);
  void FetchOne(const Picture& picture, Batch* batch);
  // From the first URL to the picture or the error, through redirects.
  HttpsReply Follow(HttpsUrl url, const HttpsLimits& limits) const;

  const UrlRules rules_;
  const HttpsClient client_;
  const Resolver resolver_;
  const absl::Duration timeout_;
  const int64_t max_image_bytes_, max_request_bytes_;
  Metrics* const metrics_;
  Logger* const log_;
  std::atomic<bool> stopping_{false};
  WorkerPool pool_;  // last: its threads use the rest
};

// Whether a picture of the request is named by a URL.
bool NamesImageUrls(const v1::GenerateRequest& request);

}  // namespace tessera
