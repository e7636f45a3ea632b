// The tables of deploy/sizing.md, computed from the formulas that admission uses, so that the page
// cannot go stale. TESSERA_UPDATE_SIZING=1 writes them into the page instead of comparing.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "kernels/layout/page_layout.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

constexpr double kMiB = 1 << 20, kGiB = 1 << 30;

struct Model {
  const char* name;
  KvGeometry geometry;
};
constexpr Model kModels[] = {{"LLaVA-1.5-7B", {32, 32, 128}},
                             {"LLaVA-1.5-13B", {40, 40, 128}},
                             {"Mistral-7B text", {32, 8, 128}}};

constexpr const char* kFormats[] = {"raw16",  "token8",   "token4",   "token2",   "token2g32",
                                    "token1", "kivi4g32", "kivi2g32", "segment2", "segment1"};
constexpr const char* kPolicies[] = {
    "none",
    "rtn(bits=8)",
    "rtn(bits=4)",
    "rtn(bits=4, window=128)",
    "rtn(bits=2)",
    "hadamard(bits=2, window=128)",
    "rtn(bits=1)",
    "kivi(bits=4)",
    "kivi",
    "calibquant(bits=2)",
    "calibquant",
    "akvq",
    "akvq(window=32)",
    "window(sinks=4, recent=256)",
    "window(sinks=4, recent=256)+rtn(bits=4)",
    "flashcache(keep=0.2)",
    "flashcache(keep=0.2)+akvq(window=32)",
};

// A prompt of `images` pictures of 576 tokens between 40 tokens of text before and 60 after, and
// the tokens of its answer.
struct Load {
  int images;
  int answer_tokens;
  std::vector<uint8_t> Vision() const {
    std::vector<uint8_t> vision(40, 0);
    vision.insert(vision.end(), 576 * images, 1);
    vision.insert(vision.end(), 60, 0);
    return vision;
  }
};
constexpr Load kLoads[] = {{1, 128}, {4, 128}};

std::string FormatTable() {
  std::string text =
      "| format | LLaVA-1.5-7B | LLaVA-1.5-13B | Mistral-7B text | bits a value |\n"
      "|---|---:|---:|---:|---:|\n";
  for (const char* name : kFormats) {
    const auto found = FormatFromName(name);
    EXPECT_TRUE(found.has_value()) << name;
    const Format format = found.value_or(Format::kRaw16);
    absl::StrAppend(&text, "| `", name, "` |");
    double bits = 0;
    for (const Model& model : kModels) {
      const KvGeometry& g = model.geometry;
      const int64_t bytes = g.layers * PageBytes(format, g);
      absl::StrAppendFormat(&text, " %.10g |", static_cast<double>(bytes) / PageTokens(format));
      bits = 8.0 * bytes / (2.0 * g.layers * g.kv_heads * g.head_dim * PageTokens(format));
    }
    absl::StrAppendFormat(&text, " %.3f |\n", bits);
  }
  return text;
}

std::string LoadTable(const Load& load) {
  const std::vector<uint8_t> vision = load.Vision();
  const PromptView prompt{vision};
  std::string text = absl::StrFormat(
      "| %d image%s: %d + %d tokens | MiB held | MiB at peak | of `none` |", load.images,
      load.images == 1 ? "" : "s", prompt.tokens(), load.answer_tokens);
  for (const Model& model : kModels) absl::StrAppend(&text, " ", model.name, " |");
  absl::StrAppend(&text, "\n|---|---:|---:|---:|---:|---:|---:|\n");
  double none = 0;
  for (const char* name : kPolicies) {
    const auto policy = ParsePolicy(name);
    EXPECT_TRUE(policy.ok()) << name << ": " << policy.status();
    if (!policy.ok()) continue;
    const auto held = [&](const Model& model) {
      return static_cast<double>(
          (*policy)->SteadyBytes(prompt, load.answer_tokens, model.geometry));
    };
    const KvGeometry& geometry = kModels[0].geometry;
    const double peak =
        static_cast<double>((*policy)->PeakBytes(prompt, load.answer_tokens, geometry) -
                            (*policy)->SlabHeadroom(geometry));
    if (none == 0) none = held(kModels[0]);
    absl::StrAppendFormat(&text, "| `%s` | %.1f | %.1f | %.3f |", name, held(kModels[0]) / kMiB,
                          peak / kMiB, held(kModels[0]) / none);
    for (const Model& model : kModels) absl::StrAppendFormat(&text, " %.1f |", kGiB / held(model));
    absl::StrAppend(&text, "\n");
  }
  return text;
}

// Sequences of one image in 48 GiB under LLaVA-1.5-7B, with four prompts being computed at once.
std::string Example() {
  constexpr double kArena = 48 * kGiB, kPrompts = 4;
  const std::vector<uint8_t> vision = kLoads[0].Vision();
  const KvGeometry& geometry = kModels[0].geometry;
  std::string text = "| policy | sequences |\n|---|---:|\n";
  for (const char* name : {"none", "akvq(window=32)"}) {
    const auto policy = *ParsePolicy(name);
    const PromptView prompt{vision};
    const int64_t held = policy->SteadyBytes(prompt, kLoads[0].answer_tokens, geometry);
    const int64_t headroom = policy->SlabHeadroom(geometry);
    const int64_t peak = policy->PeakBytes(prompt, kLoads[0].answer_tokens, geometry) - headroom;
    absl::StrAppendFormat(&text, "| `%s` | %d |\n", name,
                          static_cast<int>((kArena - kPrompts * (peak - held)) / held));
  }
  return text;
}

std::string Marker(const std::string& name, const char* edge) {
  return absl::StrCat("<!-- ", name, ": ", edge, " -->\n");
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class SizingTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SizingTest, TableOfThePageIsTrue) {
  const std::string path = SourcePath("deploy/sizing.md");
  const std::string name = GetParam();
  const std::string want = name == "formats"       ? FormatTable()
                           : name == "one image"   ? LoadTable(kLoads[0])
                           : name == "four images" ? LoadTable(kLoads[1])
                                                   : Example();
  std::string page = Read(path);
  const std::string begin = Marker(name, "begin"), end = Marker(name, "end");
  const size_t first = page.find(begin);
  ASSERT_NE(first, std::string::npos) << path << " lacks " << begin;
  const size_t start = first + begin.size(), stop = page.find(end, start);
  ASSERT_NE(stop, std::string::npos) << path << " lacks " << end;
  if (std::getenv("TESSERA_UPDATE_SIZING") != nullptr) {
    std::ofstream(path) << page.replace(start, stop - start, want);
    return;
  }
  EXPECT_EQ(page.substr(start, stop - start), want)
      << "Formulas or formats changed: run tessera_tests --gtest_filter='*SizingTest*' with "
         "TESSERA_UPDATE_SIZING=1, and read the page again.";
}

INSTANTIATE_TEST_SUITE_P(Deploy, SizingTest,
                         ::testing::Values("formats", "one image", "four images", "example"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{" ", "_"}});
                         });

}  // namespace
}  // namespace tessera
