// URLs that the fetcher follows and rejects, and its limits. The test resolves the names.
#include "server/images/image_fetcher.h"

#include <future>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/api/error_details.h"
#include "tests/server/https_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr absl::string_view kPicture = "not really a picture";
constexpr absl::string_view kLoopback = "127.0.0.1";
constexpr absl::string_view kMetadata = "169.254.169.254";

class ImageFetcherTest : public testing::Test {
 protected:
  ImageFetcherTest() {
    config_.image_url_ca_file = certificates_.ca();
    config_.image_url_allow_private = true;
    config_.image_url_timeout = absl::Seconds(30);
    config_.image_url_threads = 4;
    for (const char* host : {"pictures.test", "other.test", "*.cdn.test", "localhost"}) Allow(host);
    names_ = {{"pictures.test", {{kLoopback}}}, {"other.test", {{kLoopback}}}};
  }

  // Allows `host` with the server's port.
  void Allow(absl::string_view host) {
    config_.image_url_hosts.push_back(absl::StrCat(host, ":", server_.port()));
  }
  std::string Url(absl::string_view path, absl::string_view host = "pictures.test") const {
    return server_.Url(host, path);
  }

  // A name's answers, in turn; the last one stays.
  absl::StatusOr<std::vector<IpAddress>> Resolve(const std::string& host) {
    MutexLock lock(mutex_);
    const int turn = lookups_[host]++;
    const auto found = names_.find(host);
    if (found == names_.end()) return absl::NotFoundError("no such name");
    const auto& answers = found->second;
    std::vector<IpAddress> out;
    for (const absl::string_view text : answers[std::min<size_t>(turn, answers.size() - 1)]) {
      out.push_back(*ParseIpAddress(text));
    }
    return out;
  }
  ImageFetcher& fetcher() {
    if (fetcher_ == nullptr) {
      auto made = ImageFetcher::Make(config_, &metrics_, &log_,
                                     [this](const std::string& host) { return Resolve(host); });
      EXPECT_TRUE(made.ok()) << made.status();
      fetcher_ = *std::move(made);
    }
    return *fetcher_;
  }

  // The images of a request: what Fetch is asked for, and what it fills.
  struct Images {
    std::vector<std::string> urls;
    std::vector<std::string> data = std::vector<std::string>(urls.size());

    std::vector<ImageDownload> Downloads() {
      std::vector<ImageDownload> out;
      for (size_t i = 0; i < urls.size(); ++i) {
        out.push_back({urls[i], absl::StrCat("content[", i + 1, "].image.url"), &data[i]});
      }
      return out;
    }
  };
  std::future<absl::Status> Start(
      Images* images, std::function<bool()> gone = [] { return false; },
      absl::Time deadline = absl::InfiniteFuture()) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    fetcher().Fetch(images->Downloads(), {"r1", deadline, std::move(gone)},
                    [promise](absl::Status status) { promise->set_value(std::move(status)); });
    return promise->get_future();
  }
  absl::Status Fetch(Images* images) { return Start(images).get(); }
  absl::Status Fetch(const std::string& url) {
    Images images{{url}};
    return Fetch(&images);
  }
  double Count(const char* outcome) { return metrics_.Value(Metric::kImageFetches, {outcome}); }

  // Expects an error of this kind, which names the image and no internals.
  void ExpectNotFetched(const absl::Status& status, const char* outcome, const char* text) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(ReasonOf(status), "IMAGE_NOT_FETCHED");
    EXPECT_THAT(
        std::string(status.message()),
        AllOf(HasSubstr("content[1].image.url: the image could not be fetched"), HasSubstr(text),
              Not(HasSubstr("127.0.0.1")), Not(HasSubstr("169.254")), Not(HasSubstr(".test"))));
    EXPECT_EQ(Count(outcome), 1) << log_.text();
  }

  void Answer(const std::string& head, const HttpsServer::Write& write) {
    const size_t begin = head.find(' ') + 1;
    const std::string target = head.substr(begin, head.find(' ', begin) - begin);
    for (const auto& [path, answer] : answers_) {
      if (absl::StartsWith(target, path)) return answer(write);
    }
    write(HttpAnswer("404 Not Found", "no such path"));
  }
  void Serve(const std::string& path, const std::string& bytes) {
    answers_[path] = [bytes](const HttpsServer::Write& write) { write(bytes); };
  }
  void Redirect(const std::string& path, const std::string& to,
                const std::string& status = "302 Found") {
    Serve(path, HttpAnswer(status, "elsewhere", absl::StrCat("Location: ", to, "\r\n")));
  }

  TestCertificates certificates_;
  TestCertificates::Pair pair_ =
      certificates_.Make("pictures", absl::Hours(1),
                         "DNS:pictures.test,DNS:other.test,DNS:*.cdn.test,DNS:metadata.test");
  std::map<std::string, std::function<void(const HttpsServer::Write&)>> answers_;
  HttpsServer server_{pair_, [this](const std::string& head, const HttpsServer::Write& write) {
                        Answer(head, write);
                      }};
  ServerConfig config_;
  Metrics metrics_{"1", "demo", "cpu"};
  MemoryLogger log_;
  Mutex mutex_;
  std::map<std::string, std::vector<std::vector<absl::string_view>>> names_;
  std::map<std::string, int> lookups_;
  std::unique_ptr<ImageFetcher> fetcher_;  // last: its threads use the rest
};

TEST_F(ImageFetcherTest, FetchesTheImagesOfARequest) {
  Serve("/a", HttpAnswer("200 OK", kPicture, "Content-Type: text/html\r\n"));
  Serve("/b",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  Serve("/c", "HTTP/1.0 200 OK\r\n\r\nto the end");
  names_["x.cdn.test"] = {{kLoopback}};
  Images images{{Url("/a?sig=secret#f"), Url("/b", "x.cdn.test"), Url("/c"), Url("/a")}};
  ASSERT_TRUE(Fetch(&images).ok()) << log_.text();
  EXPECT_THAT(images.data, testing::ElementsAre(std::string(kPicture), "abcde", "to the end",
                                                std::string(kPicture)));
  EXPECT_EQ(Count("ok"), 4);
}

TEST_F(ImageFetcherTest, SaysNoMoreThanItMust) {
  Serve("/", HttpAnswer("200 OK", kPicture, "Set-Cookie: a=b\r\n"));
  ASSERT_TRUE(Fetch(Url("/a?b=c#d")).ok());
  ASSERT_TRUE(Fetch(Url("/a?b=c#d")).ok());
  ASSERT_EQ(server_.heads().size(), 2u);
  EXPECT_EQ(server_.heads()[1],
            absl::StrCat("GET /a?b=c HTTP/1.1\r\nHost: pictures.test:", server_.port(),
                         "\r\nUser-Agent: tesserad/", Version(),
                         "\r\nAccept: image/jpeg, image/png, image/webp\r\nAccept-Encoding: "
                         "identity\r\nConnection: close\r\n\r\n"));
}

TEST_F(ImageFetcherTest, FollowsThreeRedirects) {
  Redirect("/1", "/2?x", "301 Moved Permanently");
  Redirect("/2", Url("/dir/3", "other.test"), "307 Temporary Redirect");
  Redirect("/dir/3", "../last", "308 Permanent Redirect");
  Serve("/dir/../last", HttpAnswer("200 OK", kPicture));
  Redirect("/0", "/1");
  EXPECT_TRUE(Fetch(Url("/1")).ok()) << log_.text();
  ExpectNotFetched(Fetch(Url("/0")), "refused", "not allowed");
  EXPECT_THAT(log_.text(), HasSubstr("more than 3 redirects"));
}

TEST_F(ImageFetcherTest, ARedirectLoopEnds) {
  Redirect("/loop", "/loop");
  ExpectNotFetched(Fetch(Url("/loop")), "refused", "not allowed");
  EXPECT_EQ(server_.heads().size(), 4u);
}

class RedirectTest : public ImageFetcherTest, public testing::WithParamInterface<const char*> {};

TEST_P(RedirectTest, IsJudgedLikeAUrl) {
  Allow("metadata.test");
  names_["metadata.test"] = {{kMetadata}};
  Redirect("/r", absl::StrReplaceAll(GetParam(), {{"PORT", absl::StrCat(server_.port())}}));
  ExpectNotFetched(Fetch(Url("/r")), "refused", "not allowed");
  EXPECT_EQ(server_.heads().size(), 1u);
}
INSTANTIATE_TEST_SUITE_P(
    All, RedirectTest,
    testing::Values("http://pictures.test:PORT/", "http://169.254.169.254/latest/meta-data/",
                    "https://169.254.169.254/", "https://metadata.google.internal/",
                    "https://metadata.test:PORT/",            // listed, but its address is not
                    "https://pictures.test/",                 // another port
                    "https://127.0.0.1:PORT/",                // an address that is not listed
                    "https://pictures.test:PORT@evil.test/",  // somebody else's
                    "//evil.test/", "https://pictures.test\\@evil.test/", "file:///etc/passwd",
                    "https://[::1]:PORT/", "https://0x7f000001:PORT/"));

TEST_F(ImageFetcherTest, EveryAddressOfANameMustBeAllowed) {
  names_["pictures.test"] = {{kLoopback, kMetadata}};
  ExpectNotFetched(Fetch(Url("/a")), "refused", "not allowed");
  EXPECT_THAT(log_.text(), HasSubstr("169.254.169.254"));
  EXPECT_TRUE(server_.heads().empty());
}

class PublicOnlyTest : public ImageFetcherTest,
                       public testing::WithParamInterface<std::vector<absl::string_view>> {};

// Without --image_url_allow_private, as names of the Internet are resolved.
TEST_P(PublicOnlyTest, RefusesNamesOfPrivateAddresses) {
  config_.image_url_allow_private = false;
  names_["pictures.test"] = {GetParam()};
  ExpectNotFetched(Fetch(Url("/a")), "refused", "not allowed");
  EXPECT_TRUE(server_.heads().empty());
}
using Addresses = std::vector<absl::string_view>;
INSTANTIATE_TEST_SUITE_P(All, PublicOnlyTest,
                         testing::Values(Addresses{"127.0.0.1"}, Addresses{"8.8.8.8", "127.0.0.1"},
                                         Addresses{"2606:4700::1111", "8.8.8.8", "::1"},
                                         Addresses{"::ffff:127.0.0.1"}, Addresses{"10.0.0.1"},
                                         Addresses{"0.0.0.0"}, Addresses{"::"},
                                         Addresses{"64:ff9b::7f00:1"}, Addresses{"2002:7f00:1::"},
                                         Addresses{"fe80::1"}, Addresses{"fc00::1"},
                                         Addresses{"100.64.0.1"}, Addresses{"224.0.0.1"}));

TEST_F(ImageFetcherTest, ListedAddressesAreJudgedToo) {
  config_.image_url_allow_private = false;
  config_.image_url_hosts = {absl::StrCat("127.0.0.1:", server_.port()), "169.254.169.254"};
  ExpectNotFetched(Fetch(Url("/a", "127.0.0.1")), "refused", "not allowed");
  EXPECT_FALSE(Fetch("https://169.254.169.254/").ok());
  EXPECT_EQ(Count("refused"), 2);
  EXPECT_TRUE(lookups_.empty());
}

// A name that resolves differently a moment later (DNS rebinding). It is resolved once, and the
// connection goes to the validated address.
TEST_F(ImageFetcherTest, ConnectsToTheAddressThatWasJudged) {
  Serve("/a", HttpAnswer("200 OK", kPicture));
  Redirect("/r", "/a");
  names_["pictures.test"] = {{kLoopback}, {kMetadata}};
  EXPECT_TRUE(Fetch(Url("/a")).ok()) << log_.text();
  EXPECT_EQ(lookups_["pictures.test"], 1);
  // Each hop is resolved and validated again.
  names_["other.test"] = {{kLoopback}, {kMetadata}};
  ExpectNotFetched(Fetch(Url("/r", "other.test")), "refused", "not allowed");
  EXPECT_EQ(lookups_["other.test"], 2);
  EXPECT_EQ(server_.heads().size(), 2u);
}

TEST_F(ImageFetcherTest, TriesTheNextAddress) {
  Serve("/a", HttpAnswer("200 OK", kPicture));
  names_["pictures.test"] = {{"127.0.0.2", kLoopback}};  // the server is not at the first
  EXPECT_TRUE(Fetch(Url("/a")).ok()) << log_.text();
  names_["other.test"] = {{"127.0.0.2", "127.0.0.3"}};
  ExpectNotFetched(Fetch(Url("/a", "other.test")), "unreachable", "cannot be reached");
  EXPECT_THAT(log_.text(), HasSubstr("127.0.0.3"));
}

TEST_F(ImageFetcherTest, UnknownNames) {
  ExpectNotFetched(Fetch(Url("/a", "unknown.cdn.test")), "unresolved", "not known");
}

TEST_F(ImageFetcherTest, TheSystemResolvesNames) {
  const auto found = ImageFetcher::ResolveBySystem("localhost");
  ASSERT_TRUE(found.ok()) << found.status();
  for (const IpAddress& address : *found) EXPECT_EQ(ScopeOf(address), AddressScope::kPrivate);
  EXPECT_FALSE(ImageFetcher::ResolveBySystem("name.invalid").ok());
}

TEST_F(ImageFetcherTest, OtherStatusesAreNoPicture) {
  Serve("/500", HttpAnswer("500 Internal Server Error", kPicture));
  Serve("/204", "HTTP/1.1 204 No Content\r\n\r\n");
  Serve("/206", HttpAnswer("206 Partial Content", kPicture));
  Serve("/nowhere", HttpAnswer("302 Found", ""));
  ExpectNotFetched(Fetch(Url("/404")), "status", "status 404");
  for (const char* status : {"500", "204", "206"}) {
    EXPECT_THAT(std::string(Fetch(Url(absl::StrCat("/", status))).message()),
                HasSubstr(absl::StrCat("status ", status)));
  }
  EXPECT_THAT(std::string(Fetch(Url("/nowhere")).message()), HasSubstr("status 302"));
}

TEST_F(ImageFetcherTest, AnswersThatAreNotWhole) {
  Serve("/cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
  Serve("/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
  Serve("/ssh", "SSH-2.0-OpenSSH_9.2\r\n\r\n");
  Serve("/two", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
  Serve("/none", "");
  Serve("/head", "HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n");
  ExpectNotFetched(Fetch(Url("/cut")), "broken", "incomplete");
  for (const char* path : {"/chunk", "/ssh", "/two", "/none", "/head"}) {
    EXPECT_THAT(std::string(Fetch(Url(path)).message()), HasSubstr("incomplete")) << path;
  }
  EXPECT_EQ(Count("broken"), 6);
}

TEST_F(ImageFetcherTest, BytesAreBounded) {
  config_.max_image_bytes = 1000;
  Serve("/most", HttpAnswer("200 OK", std::string(1000, 'x')));
  Serve("/more", HttpAnswer("200 OK", std::string(1001, 'x')));
  Serve("/claims", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
  std::atomic<int> pieces{0};
  answers_["/endless"] = [&pieces](const HttpsServer::Write& write) {
    write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    while (write("100\r\n" + std::string(256, 'x') + "\r\n")) ++pieces;
  };
  EXPECT_TRUE(Fetch(Url("/most")).ok()) << log_.text();
  for (const char* path : {"/more", "/claims", "/endless"}) {
    const absl::Status status = Fetch(Url(path));
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("content[1].image.url: the image has more than 1000B"));
  }
  EXPECT_EQ(Count("too_large"), 3);
}

TEST_F(ImageFetcherTest, BytesOfARequestAreBounded) {
  config_.max_message_bytes = 1024;
  config_.image_url_threads = 1;
  Serve("/", HttpAnswer("200 OK", std::string(500, 'x')));
  Images two{{Url("/a"), Url("/b")}};
  EXPECT_TRUE(Fetch(&two).ok()) << log_.text();
  Images three{{Url("/a"), Url("/b"), Url("/c")}};
  const absl::Status status = Fetch(&three);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("content[3].image.url: the images of the request have more than 1KiB"));
}

TEST_F(ImageFetcherTest, SlowHostsAreGivenUp) {
  config_.image_url_timeout = absl::Milliseconds(200);
  const auto trickle = [](const HttpsServer::Write& write) {
    while (write("x")) absl::SleepFor(absl::Milliseconds(10));
  };
  answers_["/head"] = [trickle](const HttpsServer::Write& write) {
    write("HTTP/1.1 200 OK\r\nX: ");
    trickle(write);
  };
  answers_["/body"] = [trickle](const HttpsServer::Write& write) {
    write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    trickle(write);
  };
  ExpectNotFetched(Fetch(Url("/head")), "timeout", "it took longer than 200ms");
  EXPECT_THAT(std::string(Fetch(Url("/body")).message()), HasSubstr("longer than"));
}

TEST_F(ImageFetcherTest, CertificatesMustProveTheHost) {
  Serve("/", HttpAnswer("200 OK", kPicture));
  const TestCertificates strangers;
  config_.image_url_ca_file = strangers.ca();
  ExpectNotFetched(Fetch(Url("/a")), "untrusted", "certificate");
  // Not sent before the host has proved itself: a path may hold a secret.
  EXPECT_TRUE(server_.heads().empty());
}

TEST_F(ImageFetcherTest, CertificatesOfOthersAreRefused) {
  names_["localhost"] = {{kLoopback}};
  ExpectNotFetched(Fetch(Url("/a", "localhost")), "untrusted", "certificate");
  names_["x.y.cdn.test"] = {{kLoopback}};  // a star stands for one label
  EXPECT_FALSE(Fetch(Url("/a", "x.y.cdn.test")).ok());
  EXPECT_EQ(Count("untrusted"), 2);
  EXPECT_TRUE(server_.heads().empty());
}

TEST_F(ImageFetcherTest, AddressesAreInCertificatesToo) {
  const HttpsServer named(certificates_.Make("named"), [](const auto&, const auto& write) {
    write(HttpAnswer("200 OK", kPicture));
  });
  config_.image_url_hosts = {absl::StrCat("127.0.0.1:", named.port()),
                             absl::StrCat("127.0.0.1:", server_.port())};
  EXPECT_TRUE(Fetch(named.Url("127.0.0.1", "/a")).ok()) << log_.text();
  EXPECT_FALSE(Fetch(Url("/a", "127.0.0.1")).ok());
  EXPECT_EQ(Count("untrusted"), 1);
}

TEST_F(ImageFetcherTest, ExpiredCertificatesAndOldTlsAreRefused) {
  const auto answer = [](const auto&, const auto& write) { write(HttpAnswer("200 OK", kPicture)); };
  const HttpsServer expired(certificates_.Make("expired", -absl::Minutes(1), "DNS:pictures.test"),
                            answer);
  const HttpsServer old(pair_, answer, TLS1_1_VERSION);
  config_.image_url_hosts = {absl::StrCat("pictures.test:", expired.port()),
                             absl::StrCat("pictures.test:", old.port())};
  ExpectNotFetched(Fetch(expired.Url("pictures.test", "/a")), "untrusted", "certificate");
  EXPECT_THAT(log_.text(), HasSubstr("expired"));
  EXPECT_FALSE(Fetch(old.Url("pictures.test", "/a")).ok());
  EXPECT_EQ(Count("untrusted"), 2);
}

// Waits for the client to go.
void Hang(const HttpsServer::Write& write) {
  write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  while (write("1\r\nx\r\n")) absl::SleepFor(absl::Milliseconds(5));
}

TEST_F(ImageFetcherTest, EndsWhenNobodyWaits) {
  answers_["/hang"] = Hang;
  std::atomic<bool> gone{false};
  Images request{{Url("/hang"), Url("/hang")}};
  auto fetched = Start(&request, [&] { return gone.load(); });
  ASSERT_TRUE(Eventually([&] { return server_.heads().size() == 2; }));
  gone = true;
  EXPECT_EQ(fetched.get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Count("cancelled"), 2);
}

TEST_F(ImageFetcherTest, EndsAtTheRequestsDeadline) {
  answers_["/hang"] = Hang;
  Images request{{Url("/hang")}};
  const absl::Time deadline = SteadyNow() + absl::Milliseconds(200);
  EXPECT_EQ(Start(
                &request, [] { return false; }, deadline)
                .get()
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ImageFetcherTest, OneFailureEndsTheOthers) {
  answers_["/hang"] = Hang;
  Images request{{Url("/hang"), Url("/404"), Url("/hang")}};
  EXPECT_THAT(std::string(Fetch(&request).message()), HasSubstr("content[2].image.url"));
  EXPECT_EQ(Count("status"), 1);
  EXPECT_EQ(Count("cancelled"), 2);
}

TEST_F(ImageFetcherTest, StopEndsWhatIsUnderWay) {
  answers_["/hang"] = Hang;
  Images request{{Url("/hang")}};
  auto fetched = Start(&request);
  ASSERT_TRUE(Eventually([&] { return server_.heads().size() == 1; }));
  fetcher().Stop();
  EXPECT_EQ(ReasonOf(fetched.get()), "DRAINING");
  Images late{{Url("/hang")}};
  EXPECT_FALSE(Fetch(&late).ok());
}

TEST_F(ImageFetcherTest, TheQueueIsBounded) {
  answers_["/hang"] = Hang;
  config_.image_url_threads = 1;
  config_.max_queue = 1;
  std::atomic<bool> gone{false};
  Images first{{Url("/hang")}}, second = first, third = first;
  auto one = Start(&first, [&] { return gone.load(); });
  ASSERT_TRUE(Eventually([&] { return server_.heads().size() == 1; }));
  auto two = Start(&second, [&] { return gone.load(); });
  const absl::Status refused = Fetch(&third);
  EXPECT_EQ(ReasonOf(refused), "QUEUE_FULL");
  EXPECT_GT(RetryDelay(refused), absl::ZeroDuration());
  gone = true;
  EXPECT_FALSE(one.get().ok());
  EXPECT_FALSE(two.get().ok());
}

TEST_F(ImageFetcherTest, FilesAndListsThatDoNotWorkAreNamed) {
  const auto error = [this] {
    const auto made = ImageFetcher::Make(config_, &metrics_, &log_);
    EXPECT_FALSE(made.ok());
    return std::string(made.status().message());
  };
  config_.image_url_ca_file = "/nonexistent";
  EXPECT_THAT(error(), HasSubstr("--image_url_ca_file: /nonexistent"));
  config_.image_url_ca_file = pair_.key;
  EXPECT_THAT(error(), HasSubstr("pictures.key"));
  config_.image_url_hosts = {"*"};
  EXPECT_THAT(error(), HasSubstr("--image_url_hosts: \"*\""));
}

}  // namespace
}  // namespace tessera
