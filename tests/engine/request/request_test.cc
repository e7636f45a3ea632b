#include "engine/request/request.h"

#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/engine/field_matchers.h"

namespace tessera {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Params {
  SamplingParams sampling;
  StopParams stop;
  std::optional<int> top_logprobs;
  Params() { stop.max_tokens = 16; }
};
using Change = void (*)(Params&);
using Field = RequestField;

absl::Status Check(Change change) {
  Params p;
  change(p);
  return Validate(p.sampling, p.stop, p.top_logprobs);
}

TEST(Validate, AcceptsDefaultsAndEveryBorder) {
  for (Change change : std::initializer_list<Change>{
           [](Params&) {},
           [](Params& p) { p.sampling.temperature = 100; },
           [](Params& p) { p.sampling.temperature = 0; },
           [](Params& p) { p.sampling.top_k = std::numeric_limits<int>::max(); },
           [](Params& p) { p.sampling.top_p = 1; },
           [](Params& p) { p.sampling.top_p = std::numeric_limits<float>::denorm_min(); },
           [](Params& p) { p.sampling.min_p = std::nextafter(1.0f, 0.0f); },
           [](Params& p) { p.sampling.repetition_penalty = 1e-30f; },
           [](Params& p) { p.sampling.repetition_penalty = 1e30f; },
           [](Params& p) { p.sampling.presence_penalty = -2; },
           [](Params& p) { p.sampling.frequency_penalty = 2; },
           [](Params& p) { p.stop.min_tokens = 16; },
           [](Params& p) { p.stop.strings.assign(16, std::string(256, 'x')); },
           [](Params& p) { p.stop.token_ids.assign(64, 0); },
           [](Params& p) { p.top_logprobs = 0; },
           [](Params& p) { p.top_logprobs = 20; },
       }) {
    EXPECT_TRUE(Check(change).ok()) << Check(change);
  }
}

TEST(Validate, RefusalsNameTheFieldTheRangeAndTheValue) {
  struct Case {
    Change change;
    FieldViolation at;
    const char* message;
  };
  for (const Case& c : std::initializer_list<Case>{
           {[](Params& p) { p.sampling.temperature = kNan; },
            {Field::kTemperature},
            "must be within [0, 100], got nan"},
           {[](Params& p) { p.sampling.temperature = kInfinity; },
            {Field::kTemperature},
            "must be within [0, 100], got inf"},
           {[](Params& p) { p.sampling.temperature = -0.5f; },
            {Field::kTemperature},
            "must be within [0, 100], got -0.5"},
           {[](Params& p) { p.sampling.temperature = 100.5f; },
            {Field::kTemperature},
            "must be within [0, 100], got 100.5"},
           {[](Params& p) { p.sampling.top_k = -1; },
            {Field::kTopK},
            "must be 0 (off) or larger, got -1"},
           {[](Params& p) { p.sampling.top_p = 0; },
            {Field::kTopP},
            "must be within (0, 1], got 0"},
           {[](Params& p) { p.sampling.top_p = 1.5f; },
            {Field::kTopP},
            "must be within (0, 1], got 1.5"},
           {[](Params& p) { p.sampling.top_p = kNan; },
            {Field::kTopP},
            "must be within (0, 1], got nan"},
           {[](Params& p) { p.sampling.min_p = 1; },
            {Field::kMinP},
            "must be within [0, 1), got 1"},
           {[](Params& p) { p.sampling.min_p = -0.25f; },
            {Field::kMinP},
            "must be within [0, 1), got -0.25"},
           {[](Params& p) { p.sampling.min_p = kNan; },
            {Field::kMinP},
            "must be within [0, 1), got nan"},
           {[](Params& p) { p.sampling.repetition_penalty = 0; },
            {Field::kRepetitionPenalty},
            "must be finite and larger than 0, got 0"},
           {[](Params& p) { p.sampling.repetition_penalty = kInfinity; },
            {Field::kRepetitionPenalty},
            "must be finite and larger than 0, got inf"},
           {[](Params& p) { p.sampling.repetition_penalty = kNan; },
            {Field::kRepetitionPenalty},
            "must be finite and larger than 0, got nan"},
           {[](Params& p) { p.sampling.presence_penalty = 2.5f; },
            {Field::kPresencePenalty},
            "must be within [-2, 2], got 2.5"},
           {[](Params& p) { p.sampling.presence_penalty = kNan; },
            {Field::kPresencePenalty},
            "must be within [-2, 2], got nan"},
           {[](Params& p) { p.sampling.frequency_penalty = -kInfinity; },
            {Field::kFrequencyPenalty},
            "must be within [-2, 2], got -inf"},
           {[](Params& p) { p.sampling.frequency_penalty = kNan; },
            {Field::kFrequencyPenalty},
            "must be within [-2, 2], got nan"},
           {[](Params& p) { p.stop.max_tokens = 0; },
            {Field::kMaxTokens},
            "must be larger than 0, got 0"},
           {[](Params& p) { p.stop.max_tokens = -3; },
            {Field::kMaxTokens},
            "must be larger than 0, got -3"},
           {[](Params& p) { p.stop.min_tokens = 17; },
            {Field::kMinTokens},
            "must be within [0, max_tokens = 16], got 17"},
           {[](Params& p) { p.stop.min_tokens = -1; },
            {Field::kMinTokens},
            "must be within [0, max_tokens = 16], got -1"},
           {[](Params& p) { p.stop.strings.assign(17, "x"); },
            {Field::kStopStrings},
            "must be at most 16 strings, got 17"},
           {[](Params& p) {
              p.stop.strings = {"a", ""};
            },
            {Field::kStopStrings, 1},
            "must be 1 to 256 bytes long, got 0"},
           {[](Params& p) {
              p.stop.strings = {"a", "b", std::string(257, 'x')};
            },
            {Field::kStopStrings, 2},
            "must be 1 to 256 bytes long, got 257"},
           {[](Params& p) { p.stop.token_ids.assign(65, 1); },
            {Field::kStopTokenIds},
            "must be at most 64 ids, got 65"},
           {[](Params& p) {
              p.stop.token_ids = {1, 2, -7};
            },
            {Field::kStopTokenIds, 2},
            "must be 0 or larger, got -7"},
           {[](Params& p) { p.top_logprobs = -1; },
            {Field::kTopLogprobs},
            "must be within [0, 20], got -1"},
           {[](Params& p) { p.top_logprobs = 21; },
            {Field::kTopLogprobs},
            "must be within [0, 20], got 21"},
       }) {
    const absl::Status status = Check(c.change);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_EQ(status.message(), c.message);
    EXPECT_TRUE(FailsAt(status, c.at, {}));
  }
}

}  // namespace
}  // namespace tessera
