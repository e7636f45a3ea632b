// Fuzzes the parser of OpenAI requests. Any HTTP body gives INVALID_ARGUMENT, or requests within
// the limit of choices that convert like requests over gRPC.
#include <cstddef>
#include <cstdint>

#include "base/base.h"
#include "server/http/openai_request.h"
#include "tests/fuzz/fuzzed_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  static const ModelConfig* const model = new ModelConfig();
  for (const OpenAiKind kind : {OpenAiKind::kChat, OpenAiKind::kCompletion}) {
    const auto parsed = ParseOpenAiRequest(kind, body, *model);
    if (!parsed.ok()) {
      TESSERA_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
      TESSERA_CHECK(!parsed.status().message().empty());
      continue;
    }
    TESSERA_CHECK(parsed->n >= 1 && !parsed->prompts.empty());
    TESSERA_CHECK(parsed->prompts.size() * static_cast<size_t>(parsed->n) <= kMaxChoices);
    for (const v1::GenerateRequest& prompt : parsed->prompts) {
      TESSERA_CHECK(prompt.request_id().empty());
      ConvertAndCheck(prompt);
    }
  }
  return 0;
}
