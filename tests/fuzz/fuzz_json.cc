// Fuzzes ParseJson. Any text gives a document within the limits or INVALID_ARGUMENT. A document
// that is accepted equals the one that nlohmann-json parses by itself.
#include "base/base.h"
#include "base/json.h"

namespace {

int Depth(const nlohmann::json& json) {
  int deepest = 0;
  if (json.is_structured()) {
    for (const auto& child : json) deepest = std::max(deepest, Depth(child));
    ++deepest;
  }
  return deepest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<nlohmann::json> json =
      ParseJson(text, "fuzz", {.max_bytes = 1 << 16, .max_depth = 16, .max_values = 1000});
  if (!json.ok()) {
    TESSERA_CHECK(json.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  TESSERA_CHECK(Depth(*json) <= 16);
  TESSERA_CHECK(*json == nlohmann::json::parse(text.begin(), text.end(), nullptr, false));
  int i = 0;
  float f = 0;
  bool b = false;
  std::string s;
  GetInt(*json, "fuzz", "a", -5, 5, &i).IgnoreError();
  GetFloat(*json, "fuzz", "a", -5, 5, &f).IgnoreError();
  GetBool(*json, "fuzz", "a", &b).IgnoreError();
  GetString(*json, "fuzz", "a", &s).IgnoreError();
  TESSERA_CHECK(i >= -5 && i <= 5 && f >= -5 && f <= 5);
  return 0;
}
