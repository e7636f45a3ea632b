// Generation settings that several commands share. One list with one set of ranges serves options
// of the command line and keys of a JSON line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cli/json_fields.h"
#include "client/cli/options.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

// Parses "prompt" or "question"; INVALID_ARGUMENT for other text.
absl::Status ParseCommitAt(absl::string_view text, v1::KvPolicy::CommitAt* out);
inline constexpr char kCommitAtHelp[] =
    "when the KV cache is compressed: prompt (at the end of the prompt) or question (after the "
    "last "
    "image, so that the question reads the compressed cache)";

// Unset fields are not sent, so the server's defaults apply. Threads: one.
struct GenerationOptions {
  std::optional<int> max_tokens, min_tokens, top_k;
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::string kv_policy;
  v1::KvPolicy::CommitAt commit_at = v1::KvPolicy::COMMIT_AT_UNSPECIFIED;
  std::string model;
  int priority = 0;
  bool bypass_prefix = false;
  std::string cache_salt;

  void Register(Options* options);
  // Sets the fields that the object has; the others keep their values.
  absl::Status Read(Fields* fields);
  // Writes the fields that are set to the request.
  void Apply(v1::GenerateRequest* request) const;
};

}  // namespace tessera::client
