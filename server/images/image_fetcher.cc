#include "server/images/image_fetcher.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

constexpr int kMaxRedirects = 3;
constexpr absl::Duration kConnectTimeout = absl::Seconds(5);

bool IsRedirect(const HttpsReply& reply) {
  if (reply.outcome != FetchOutcome::kStatus || reply.location.empty()) return false;
  switch (reply.status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
      return true;
    default:
      return false;
  }
}

HttpsReply Failed(FetchOutcome outcome, std::string detail) {
  HttpsReply reply;
  reply.outcome = outcome;
  reply.detail = std::move(detail);
  return reply;
}

// Returns the error for the caller, without addresses and the names of redirects.
std::string TextForCaller(const HttpsReply& reply, absl::Duration timeout) {
  constexpr absl::string_view kNotFetched = "the image could not be fetched: ";
  switch (reply.outcome) {
    case FetchOutcome::kRefused:
      return absl::StrCat(kNotFetched, "its host, or the target of a redirect, is not allowed");
    case FetchOutcome::kUnresolved:
      return absl::StrCat(kNotFetched, "its host is not known");
    case FetchOutcome::kUnreachable:
      return absl::StrCat(kNotFetched, "its host cannot be reached");
    case FetchOutcome::kUntrusted:
      return absl::StrCat(kNotFetched, "its host shows no certificate that this server trusts");
    case FetchOutcome::kStatus:
      return absl::StrCat(kNotFetched, "its host answered with status ", reply.status);
    case FetchOutcome::kTimeout:
      return absl::StrCat(kNotFetched, "it took longer than ", absl::FormatDuration(timeout));
    default:
      return absl::StrCat(kNotFetched, "its host sent an incomplete answer");
  }
}

}  // namespace

// The images of one call.
struct ImageFetcher::Batch {
  Batch(Caller c, std::function<void(absl::Status)> d, size_t images, int64_t bytes)
      : caller(std::move(c)), done(std::move(d)), bytes_left(bytes), left(images) {}

  void Fail(const absl::Status& status) {
    MutexLock lock(mutex);
    if (error.ok()) error = status;
    failed = true;
  }
  // Ends one image. The last one calls `done`.
  void Finish() {
    absl::Status status;
    {
      MutexLock lock(mutex);
      if (--left > 0) return;
      status = error;
    }
    std::exchange(done, nullptr)(status);
  }

  const Caller caller;
  std::function<void(absl::Status)> done;
  std::atomic<int64_t> bytes_left;  // for all images together
  std::atomic<bool> failed{false};  // the others need not be fetched
  Mutex mutex;
  size_t left TESSERA_GUARDED_BY(mutex);
  absl::Status error TESSERA_GUARDED_BY(mutex);
};

absl::StatusOr<std::vector<IpAddress>> ImageFetcher::ResolveBySystem(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) return absl::NotFoundError(gai_strerror(error));
  std::vector<IpAddress> addresses;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    IpAddress address;
    if (a->ai_family == AF_INET) {
      sockaddr_in v4;
      std::memcpy(&v4, a->ai_addr, sizeof(v4));
      address.bytes[10] = address.bytes[11] = 0xff;
      std::memcpy(address.bytes.data() + 12, &v4.sin_addr, 4);
    } else if (a->ai_family == AF_INET6) {
      sockaddr_in6 v6;
      std::memcpy(&v6, a->ai_addr, sizeof(v6));
      std::memcpy(address.bytes.data(), &v6.sin6_addr, 16);
    } else {
      continue;
    }
    addresses.push_back(address);
  }
  freeaddrinfo(found);
  if (addresses.empty()) return absl::NotFoundError("no addresses");
  return addresses;
}

absl::StatusOr<std::unique_ptr<ImageFetcher>> ImageFetcher::Make(const ServerConfig& config,
                                                                 FetchCounters* counters,
                                                                 Logger* log, Resolver resolver) {
  auto rules = UrlRules::Make(config.image_url_hosts, config.image_url_allow_private);
  if (!rules.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--image_url_hosts: ", rules.status().message()));
  }
  auto client = HttpsClient::Open(config.image_url_ca_file);
  if (!client.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("--image_url_ca_file: ", client.status().message()));
  }
  return std::unique_ptr<ImageFetcher>(new ImageFetcher(
      config, *std::move(rules), *std::move(client), counters, log, std::move(resolver)));
}

ImageFetcher::ImageFetcher(const ServerConfig& config, UrlRules rules, HttpsClient client,
                           FetchCounters* counters, Logger* log, Resolver resolver)
    : rules_(std::move(rules)),
      client_(std::move(client)),
      resolver_(std::move(resolver)),
      timeout_(config.image_url_timeout),
      max_image_bytes_(config.max_image_bytes),
      max_request_bytes_(config.max_message_bytes),
      counters_(counters),
      log_(log),
      pool_("tessera-fetch", config.image_url_threads, static_cast<size_t>(config.max_queue)) {}

void ImageFetcher::Fetch(std::vector<ImageDownload> images, Caller caller,
                         std::function<void(absl::Status)> done) {
  TESSERA_CHECK(!images.empty());
  auto batch = std::make_shared<Batch>(std::move(caller), std::move(done), images.size(),
                                       max_request_bytes_);
  for (ImageDownload& image : images) {
    const bool accepted = pool_.TrySubmit([this, image = std::move(image), batch] {
      FetchOne(image, batch.get());
      batch->Finish();
    });
    if (accepted) continue;
    batch->Fail(RetryLater(absl::StatusCode::kResourceExhausted,
                           "too many images wait to be fetched", reason::kQueueFull,
                           absl::Seconds(1)));
    batch->Finish();
  }
}

void ImageFetcher::FetchOne(const ImageDownload& image, Batch* batch) {
  const absl::Time start = SteadyNow();
  HttpsLimits limits;
  limits.deadline = std::min(start + timeout_, batch->caller.deadline);
  limits.connect_timeout = kConnectTimeout;
  limits.max_body_bytes = std::clamp<int64_t>(batch->bytes_left, 0, max_image_bytes_);
  limits.cancelled = [this, batch] { return batch->failed || stopping_ || batch->caller.gone(); };

  // The request was validated before, so a parse error here is a fault of ours.
  auto url = ParseHttpsUrl(image.url);
  HttpsReply reply;
  if (!url.ok()) {
    reply = Failed(FetchOutcome::kRefused, std::string(url.status().message()));
  } else if (limits.cancelled()) {
    reply = Failed(FetchOutcome::kCancelled, "before it began");
  } else {
    reply = Follow(*url, limits);
  }
  const int64_t bytes = static_cast<int64_t>(reply.body.size());
  if (reply.outcome == FetchOutcome::kOk && batch->bytes_left.fetch_sub(bytes) < bytes) {
    reply.outcome = FetchOutcome::kTooLarge;  // other images took the rest
    limits.max_body_bytes = 0;
  }

  const double seconds = absl::ToDoubleSeconds(SteadyNow() - start);
  const bool ok = reply.outcome == FetchOutcome::kOk;
  counters_->CountImageFetch(reply.outcome, seconds);
  log_->Write(ok ? LogLevel::kDebug : LogLevel::kInfo, "image fetch",
              {{"request_id", batch->caller.request_id},
               {"host", url.ok() ? url->host : ""},
               {"outcome", FetchOutcomeName(reply.outcome)},
               {"error", reply.detail},
               {"bytes", bytes},
               {"seconds", seconds}});
  const bool late = SteadyNow() >= batch->caller.deadline;
  if (ok) {
    *image.data = std::move(reply.body);
  } else if (reply.outcome == FetchOutcome::kTooLarge) {
    const bool one = limits.max_body_bytes == max_image_bytes_;
    batch->Fail(
        FieldError(image.path,
                   one ? absl::StrCat("the image has more than ", FormatByteSize(max_image_bytes_))
                       : absl::StrCat("the images of the request have more than ",
                                      FormatByteSize(max_request_bytes_), " together"),
                   reason::kLimitExceeded, absl::StatusCode::kResourceExhausted));
  } else if (stopping_) {
    batch->Fail(RetryLater(absl::StatusCode::kUnavailable, "the server is stopping",
                           reason::kDraining, absl::Seconds(1)));
  } else if (late) {
    batch->Fail(absl::DeadlineExceededError("the request's deadline has passed"));
  } else if (reply.outcome == FetchOutcome::kCancelled) {
    batch->Fail(absl::CancelledError("the client went away"));
  } else {
    batch->Fail(FieldError(image.path, TextForCaller(reply, timeout_), reason::kImageNotFetched));
  }
}

HttpsReply ImageFetcher::Follow(HttpsUrl url, const HttpsLimits& limits) const {
  for (int redirects = 0;; ++redirects) {
    if (absl::Status listed = rules_.Check(url); !listed.ok()) {
      return Failed(FetchOutcome::kRefused, absl::StrCat(url.HostHeader(), " is not on the list"));
    }
    std::vector<IpAddress> addresses;
    if (url.literal.has_value()) {
      addresses = {*url.literal};
    } else {
      auto resolved = resolver_(url.host);
      if (!resolved.ok()) {
        return Failed(FetchOutcome::kUnresolved,
                      absl::StrCat(url.host, ": ", resolved.status().message()));
      }
      addresses = *std::move(resolved);
    }
    // One address that is not allowed is enough: the operator did not mean such a name.
    for (const IpAddress& address : addresses) {
      if (rules_.Allows(address)) continue;
      return Failed(FetchOutcome::kRefused, absl::StrCat(url.host, " is ", ToString(address)));
    }
    // Resolving cannot be cancelled, and may have taken long.
    if (limits.cancelled()) return Failed(FetchOutcome::kCancelled, "after its name was resolved");
    if (SteadyNow() >= limits.deadline) return Failed(FetchOutcome::kTimeout, "resolving its name");
    HttpsReply reply = client_.Get(url, addresses, limits);
    if (!IsRedirect(reply)) return reply;
    if (redirects == kMaxRedirects) {
      return Failed(FetchOutcome::kRefused,
                    absl::StrCat("more than ", kMaxRedirects, " redirects"));
    }
    auto next = ResolveReference(url, reply.location);
    if (!next.ok()) {
      return Failed(FetchOutcome::kRefused,
                    absl::StrCat(url.host, " redirects: ", next.status().message()));
    }
    url = *std::move(next);
  }
}

void ImageFetcher::Stop() {
  stopping_ = true;
  pool_.Stop();
}

}  // namespace tessera
