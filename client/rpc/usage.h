// What an answer cost, for people and for programs.
#pragma once

#include <string>

#include "client/rpc/call_queue.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// One line without newline: tokens in and out, KV bytes, time to first token, tokens per second.
// Times are the client's own, except the decode rate's fallback.
std::string UsageLine(const CallResult& result);

// Every field of v1.Usage by its proto name, times nested.
nlohmann::ordered_json UsageJson(const v1::Usage& usage);

// "stop", "length", or "" for a reason that this client does not know.
std::string ReasonText(const v1::Finished& finished);

// The `finish_reason`, what matched, and `usage` of a good result.
void AddFinish(const v1::Finished& finished, nlohmann::ordered_json* json);

double Seconds(Clock::duration duration);

// Moment of the first token or text; `done` when there was none.
Clock::time_point FirstToken(const CallResult& result);

}  // namespace tessera::client
