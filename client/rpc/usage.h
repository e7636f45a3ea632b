// Formats the usage of an answer for people and for programs. Threads: functions only, safe.
#pragma once

#include <string>

#include "client/rpc/call_queue.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// Returns one line without newline: tokens in and out, KV bytes, time to first token, and tokens
// per second. The client measured the times.
std::string UsageLine(const CallResult& result);

// Returns every field of v1.Usage by its proto name, with nested times.
nlohmann::ordered_json UsageJson(const v1::Usage& usage);

// Returns "stop", "length", or "" for an unknown reason.
std::string ReasonText(const v1::Finished& finished);

// Adds finish_reason, the stop string or token that matched, and usage of a good result.
void AddFinish(const v1::Finished& finished, nlohmann::ordered_json* json);

// Converts a duration to seconds.
double Seconds(Clock::duration duration);

// Returns when the first token or text came, or the end of the call if there was none.
Clock::time_point FirstToken(const CallResult& result);

}  // namespace tessera::client
