#include "client/rpc/generation_options.h"

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera::client {
namespace {

constexpr Range<int> kTokens = {1, 1 << 24};
// Stand for the open ends of the proto's ranges. Values closer to them make no difference.
constexpr double kAboveZero = 1e-6, kBelowOne = 1 - 1e-6;

// Calls visit(name, target, range, help) for each optional number.
template <class Visit>
absl::Status ForEachNumber(GenerationOptions* g, Visit visit) {
  RETURN_IF_ERROR(visit("max_tokens", &g->max_tokens, kTokens, "maximum tokens of an answer"));
  RETURN_IF_ERROR(visit("min_tokens", &g->min_tokens, Range<int>{0, 1 << 24},
                        "do not stop before this many tokens"));
  RETURN_IF_ERROR(visit("temperature", &g->temperature, Range<double>{0, 100},
                        "sampling temperature; 0 is greedy"));
  RETURN_IF_ERROR(visit("top_k", &g->top_k, Range<int>{0, 1 << 24},
                        "sample from this many best tokens; 0 is off"));
  RETURN_IF_ERROR(visit("top_p", &g->top_p, Range<double>{kAboveZero, 1},
                        "sample from the fewest tokens with this probability; 1 is off"));
  RETURN_IF_ERROR(visit("min_p", &g->min_p, Range<double>{0, kBelowOne},
                        "minimum probability, relative to the best token"));
  RETURN_IF_ERROR(visit("repetition_penalty", &g->repetition_penalty,
                        Range<double>{kAboveZero, 1e6}, "1 is off"));
  RETURN_IF_ERROR(
      visit("presence_penalty", &g->presence_penalty, Range<double>{-2, 2}, "0 is off"));
  return visit("frequency_penalty", &g->frequency_penalty, Range<double>{-2, 2}, "0 is off");
}

}  // namespace

absl::Status ParseCommitAt(absl::string_view text, v1::KvPolicy::CommitAt* out) {
  if (text == "prompt") {
    *out = v1::KvPolicy::COMMIT_AT_PROMPT;
  } else if (text == "question") {
    *out = v1::KvPolicy::COMMIT_AT_QUESTION;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is neither prompt nor question"));
  }
  return absl::OkStatus();
}

void GenerationOptions::Register(Options* options) {
  const auto add = [&](const char* name, auto* out, auto range, const char* help) {
    options->Add(name, out, range, help);
    return absl::OkStatus();
  };
  TESSERA_CHECK(ForEachNumber(this, add).ok());
  options->Add("seed", &seed, "the same seed and request give the same answer");
  options->AddEach(
      "stop", "TEXT",
      [this](absl::string_view text) -> absl::Status {
        if (text.empty()) return absl::InvalidArgumentError("must not be empty");
        stop.emplace_back(text);
        return absl::OkStatus();
      },
      "end the answer before this text");
  options->Add("ignore_eos", &ignore_eos, "do not stop at the end-of-sequence token");
  options->Add("kv_policy", "POLICY", &kv_policy,
               "KV-compression method, such as none; `tessera info` lists them");
  options->AddParsed(
      "commit_at", "prompt|question",
      [this](absl::string_view text) { return ParseCommitAt(text, &commit_at); }, kCommitAtHelp);
  options->Add("model", "NAME", &model, "fail unless the server serves this model");
  options->Add("priority", &priority, Range<int>{}, "requests of higher priority run first");
  options->Add("bypass_prefix", &bypass_prefix, "neither read nor fill the server's caches");
  options->Add("cache_salt", "TEXT", &cache_salt,
               "share cached prefixes only with requests of this salt");
}

absl::Status GenerationOptions::Read(Fields* fields) {
  const auto read = [&](const char* name, auto* out, auto range, const char*) {
    return fields->Get(name, range, out);
  };
  RETURN_IF_ERROR(ForEachNumber(this, read));
  RETURN_IF_ERROR(fields->Get("seed", &seed));
  RETURN_IF_ERROR(fields->Get("stop", &stop));
  RETURN_IF_ERROR(fields->Get("ignore_eos", &ignore_eos));
  RETURN_IF_ERROR(fields->Get("kv_policy", &kv_policy));
  std::string read_commit_at;
  RETURN_IF_ERROR(fields->Get("commit_at", &read_commit_at));
  if (!read_commit_at.empty()) {
    if (const absl::Status status = ParseCommitAt(read_commit_at, &commit_at); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("commit_at: ", status.message()));
    }
  }
  RETURN_IF_ERROR(fields->Get("model", &model));
  std::optional<int> read_priority;
  RETURN_IF_ERROR(fields->Get("priority", Range<int>{}, &read_priority));
  if (read_priority) priority = *read_priority;
  RETURN_IF_ERROR(fields->Get("bypass_prefix", &bypass_prefix));
  return fields->Get("cache_salt", &cache_salt);
}

void GenerationOptions::Apply(v1::GenerateRequest* request) const {
  v1::Sampling& sampling = *request->mutable_sampling();
  if (temperature) sampling.set_temperature(static_cast<float>(*temperature));
  if (top_k) sampling.set_top_k(*top_k);
  if (top_p) sampling.set_top_p(static_cast<float>(*top_p));
  if (min_p) sampling.set_min_p(static_cast<float>(*min_p));
  if (repetition_penalty) {
    sampling.set_repetition_penalty(static_cast<float>(*repetition_penalty));
  }
  if (presence_penalty) sampling.set_presence_penalty(static_cast<float>(*presence_penalty));
  if (frequency_penalty) sampling.set_frequency_penalty(static_cast<float>(*frequency_penalty));
  if (seed) sampling.set_seed(*seed);
  v1::Stopping& stopping = *request->mutable_stopping();
  if (max_tokens) stopping.set_max_tokens(*max_tokens);
  if (min_tokens) stopping.set_min_tokens(*min_tokens);
  for (const std::string& text : stop) stopping.add_stop(text);
  if (ignore_eos) stopping.set_ignore_eos(true);
  if (!kv_policy.empty()) request->mutable_kv_policy()->set_text(kv_policy);
  if (commit_at != v1::KvPolicy::COMMIT_AT_UNSPECIFIED) {
    request->mutable_kv_policy()->set_commit_at(commit_at);
  }
  request->set_model(model);
  request->set_priority(priority);
  if (bypass_prefix) request->mutable_cache()->set_bypass_prefix(true);
  if (!cache_salt.empty()) request->mutable_cache()->set_salt(cache_salt);
}

}  // namespace tessera::client
