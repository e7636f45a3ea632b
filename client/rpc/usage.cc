#include "client/rpc/usage.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "client/cli/format.h"

namespace tessera::client {

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

Clock::time_point FirstToken(const CallResult& result) {
  return result.marks.empty() ? result.done : result.marks.front().at;
}

std::string UsageLine(const CallResult& result) {
  const v1::Usage& usage = result.finished.usage();
  std::string line = absl::StrCat(FormatCount(usage.prompt_tokens()), " tokens in");
  if (usage.image_tokens() > 0 || usage.cached_tokens() > 0) {
    absl::StrAppend(&line, " (", FormatCount(usage.image_tokens()), " of images, ",
                    FormatCount(usage.cached_tokens()), " cached)");
  }
  absl::StrAppend(&line, ", ", FormatCount(usage.output_tokens()), " out | KV ",
                  FormatBytes(usage.kv_bytes()));
  absl::StrAppendFormat(&line, " at %.2f bits (%s)", usage.kv_mean_bits(), usage.kv_policy());
  const auto first = FirstToken(result);
  absl::StrAppend(&line, " | first token ", FormatSeconds(Seconds(first - result.sent)));
  // The rate counts the tokens after the first delta. A single delta leaves no interval to divide
  // by.
  if (result.marks.size() > 1) {
    int later = 0;
    for (size_t i = 1; i < result.marks.size(); ++i) later += result.marks[i].tokens;
    const double seconds = Seconds(result.marks.back().at - first);
    if (later > 0 && seconds > 0) absl::StrAppendFormat(&line, " | %.1f tokens/s", later / seconds);
  }
  if (usage.preemptions() > 0) {
    absl::StrAppend(&line, " | preempted ", usage.preemptions(), " times");
  }
  return line;
}

nlohmann::ordered_json UsageJson(const v1::Usage& usage) {
  nlohmann::ordered_json json;
  json["prompt_tokens"] = usage.prompt_tokens();
  json["image_tokens"] = usage.image_tokens();
  json["cached_tokens"] = usage.cached_tokens();
  json["output_tokens"] = usage.output_tokens();
  json["preemptions"] = usage.preemptions();
  json["kv_bytes"] = usage.kv_bytes();
  json["kv_bytes_peak"] = usage.kv_bytes_peak();
  json["kv_mean_bits"] = usage.kv_mean_bits();
  json["evicted_text_tokens"] = usage.evicted_text_tokens();
  json["evicted_image_tokens"] = usage.evicted_image_tokens();
  json["kv_bytes_per_token"] = usage.kv_bytes_per_token();
  json["kv_policy"] = usage.kv_policy();
  const v1::StageTimes& times = usage.times();
  json["times"] = {{"image_decode", times.image_decode()},
                   {"queue", times.queue()},
                   {"vision_encode", times.vision_encode()},
                   {"prefill", times.prefill()},
                   {"decode", times.decode()},
                   {"time_to_first_token", times.time_to_first_token()},
                   {"total", times.total()}};
  return json;
}

std::string ReasonText(const v1::Finished& finished) {
  switch (finished.reason()) {
    case v1::Finished::REASON_STOP:
      return "stop";
    case v1::Finished::REASON_LENGTH:
      return "length";
    default:
      return "";
  }
}

void AddFinish(const v1::Finished& finished, nlohmann::ordered_json* json) {
  (*json)["finish_reason"] = ReasonText(finished);
  if (finished.matched_case() == v1::Finished::kStopString) {
    (*json)["stop_string"] = finished.stop_string();
  }
  if (finished.matched_case() == v1::Finished::kStopTokenId) {
    (*json)["stop_token_id"] = finished.stop_token_id();
  }
  (*json)["usage"] = UsageJson(finished.usage());
}

}  // namespace tessera::client
