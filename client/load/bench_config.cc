#include "client/load/bench_config.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/load/synthetic.h"
#include "client/rpc/connection.h"

namespace tessera::client {
namespace {

using absl::InvalidArgumentError;

// Derives a seed from two numbers with one step of splitmix64, so that seeds of different purposes
// do not collide.
uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9E3779B97F4A7C15u * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

constexpr uint64_t kSharedImages = ~uint64_t{0};

// Options that a comparison of transports does not support.
constexpr const char* kNotForComparison[] = {"rate",    "requests", "duration",      "slo",
                                             "timeout", "soak",     "bypass_prefix", "tls_ca"};
// With fewer rounds a median has no bounds of 95 % (percentile.h).
constexpr int kMinRounds = 6;

}  // namespace

absl::Status ParseSlo(absl::string_view text, Slo* out) {
  for (absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    std::optional<double>* target = pair.first == "ttft"   ? &out->ttft_seconds
                                    : pair.first == "tpot" ? &out->tpot_seconds
                                    : pair.first == "e2e"  ? &out->e2e_seconds
                                                           : nullptr;
    if (target == nullptr) {
      return InvalidArgumentError(
          absl::StrCat("\"", pair.first, "\" is none of ttft, tpot and e2e"));
    }
    if (target->has_value()) {
      return InvalidArgumentError(absl::StrCat(pair.first, " is given twice"));
    }
    absl::Duration limit;
    if (!absl::ParseDuration(pair.second, &limit) || limit <= absl::ZeroDuration() ||
        limit == absl::InfiniteDuration()) {
      return InvalidArgumentError(
          absl::StrCat("\"", pair.second, "\" is not a time such as 200ms"));
    }
    *target = absl::ToDoubleSeconds(limit);
  }
  return absl::OkStatus();
}

void BenchConfig::Register(Options* options) {
  endpoint.Register(options);
  options->Add("concurrency", &concurrency, Range<int>{1, 65536},
               "closed loop: requests in flight; a new one is sent when one ends");
  options->Add("rate", &rate, Range<double>{0, 1e6},
               "open loop: requests per second on average, with Poisson arrivals that do not wait "
               "for earlier requests; 0 is closed loop");
  options->Add("requests", &requests, Range<int>{0},
               "measured requests; 0 is no limit, or 64 without --duration");
  options->Add("duration", &duration,
               "send requests for this long; every request that was sent counts");
  options->Add("warmup", &warmup, Range<int>{0}, "requests that are sent first and not measured");
  options->Add("images", &images, Range<int>{0, 4096}, "images in a request");
  options->Add("image_side", &image_side, Range<int>{1, 8192}, "side of an image in pixels");
  options->Add("shared_images", &shared_images,
               "send the same images in every request; without it each image is new");
  options->Add("prompt_tokens", &prompt_tokens, Range<int>{1, 1 << 24},
               "text tokens of a prompt of random words, including the template; approximate, the "
               "report shows the server's count");
  options->Add("prompt", "TEXT", &prompt, "send this text instead");
  options->Add("output_tokens", &output_tokens, Range<int>{1, 1 << 24},
               "tokens of each answer; end-of-sequence is ignored");
  options->Add("seed", &given_seed_,
               "seed of images, words and arrivals; random by default, so that a run does not find "
               "the images of the last one in the server's caches");
  options->AddEach(
      "slo", "LIST", [this](absl::string_view text) { return ParseSlo(text, &slo); },
      "limits of a request that counts for goodput, such as ttft=200ms,tpot=50ms,e2e=2s");
  options->Add("timeout", &timeout, "deadline of a request; 0 is no limit");
  options->Add("kv_policy", "POLICY", &kv_policy, "KV-compression method of every request");
  options->Add("bypass_prefix", &bypass_prefix, "neither read nor fill the server's caches");
  options->Add("compare_http", "HOST:PORT", &compare_http,
               "compare HTTP with gRPC: send the same requests over gRPC and to the OpenAI port at "
               "this address (plain text) in --rounds rounds, in alternating order. With "
               "--concurrency=1 a round is one request, else 4 for each request in flight. Prints "
               "the ratios of times and rates. --warmup counts rounds");
  options->Add("rounds", &rounds, Range<int>{kMinRounds, 1 << 20},
               "--compare_http: number of rounds");
  options->Add("json", &json, "print one JSON line instead of tables");
}

absl::Status BenchConfig::Finish(const Options& options) {
  if (open_loop() && options.given("concurrency")) {
    return InvalidArgumentError(
        "--rate (open loop) and --concurrency (closed loop) exclude each other");
  }
  if (!prompt.empty() && options.given("prompt_tokens")) {
    return InvalidArgumentError("--prompt and --prompt_tokens exclude each other");
  }
  if (images == 0 && (shared_images || options.given("image_side"))) {
    return InvalidArgumentError("--shared_images and --image_side need --images");
  }
  if (options.given("rounds") && compare_http.empty()) {
    return InvalidArgumentError("--rounds needs --compare_http");
  }
  for (const char* name : kNotForComparison) {
    if (!compare_http.empty() && options.given(name)) {
      return InvalidArgumentError(absl::StrCat("--compare_http does not go with --", name));
    }
  }
  if (requests == 0 && duration == absl::ZeroDuration()) requests = 64;
  seed = given_seed_ ? *given_seed_ : Mix(std::random_device{}(), std::random_device{}());
  return absl::OkStatus();
}

Workload::Workload(const BenchConfig& config, int words) : config_(config), words_(words) {
  if (!config.shared_images) return;
  for (int i = 0; i < config.images; ++i) {
    const uint64_t seed = Mix(Mix(config.seed, kSharedImages), i);
    shared_images_.push_back(SyntheticPng(config.image_side, seed));
  }
}

v1::GenerateRequest Workload::Make(int64_t index) const {
  const uint64_t seed = Mix(config_.seed, index);
  v1::GenerateRequest request;
  for (int i = 0; i < config_.images; ++i) {
    request.add_content()->mutable_image()->set_data(
        config_.shared_images ? shared_images_[i] : SyntheticPng(config_.image_side, Mix(seed, i)));
  }
  request.add_content()->set_text(
      config_.prompt.empty() ? SyntheticText(words_, Mix(seed, kSharedImages)) : config_.prompt);
  request.mutable_sampling()->set_temperature(0);
  v1::Stopping& stopping = *request.mutable_stopping();
  stopping.set_max_tokens(config_.output_tokens);
  stopping.set_ignore_eos(true);
  if (!config_.kv_policy.empty()) request.mutable_kv_policy()->set_text(config_.kv_policy);
  if (config_.bypass_prefix) request.mutable_cache()->set_bypass_prefix(true);
  return request;
}

}  // namespace tessera::client
