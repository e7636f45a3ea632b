// The source tree obeys the rules of layers. Synthetic trees break each rule once, next to the most
// similar legal case.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/layers/layer_rules.h"
#include "tests/support/paths.h"

namespace tessera::layers {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

TEST(LayersTest, TreeObeysTheRules) {
  const Findings findings = CheckTree(SourcePath(""));
  EXPECT_THAT(findings.violations, IsEmpty());
  for (const std::string& warning : findings.warnings) {
    std::cout << "warning: " << warning << "\n";
  }
  EXPECT_THAT(CheckedFolders(SourcePath("")),
              IsSupersetOf({"base", "cache", "engine", "kernels", "tests"}));
}

struct Case {
  std::string name;
  std::string path;
  std::string content;
  std::string violation;  // Without "path:line: "; empty when the file is legal.
};

// A synthetic tree in a temporary folder.
class RoomTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    root_ = fs::path(::testing::TempDir()) / absl::StrCat("layers_", name, "_", getpid());
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << content;
  }

  fs::path root_;
};

class SyntheticTree : public RoomTest, public ::testing::WithParamInterface<Case> {};

TEST_P(SyntheticTree, IsJudged) {
  const Case& c = GetParam();
  Write("engine/text/neighbour.h", "#pragma once\n");
  Write(c.path, absl::StrCat("// First line.\n", c.content, "\n"));
  const Findings findings = CheckTree(root_);
  EXPECT_THAT(findings.warnings, IsEmpty());
  if (c.violation.empty()) {
    EXPECT_THAT(findings.violations, IsEmpty());
  } else {
    EXPECT_THAT(findings.violations, ElementsAre(absl::StrCat(c.path, ":2: ", c.violation)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Includes, SyntheticTree,
    ::testing::Values(
        Case{"up", "cache/a.cc", "#include \"engine/b.h\"", "cache may not include engine/b.h"},
        Case{"up_angle", "kernels/a.h", "#  include <cache/b.h>  // why",
             "kernels may not include cache/b.h"},
        Case{"down", "engine/text/a.cc", "#include \"cache/b.h\"", ""},
        Case{"sideways", "vision/codecs/a.cc", "#include \"cache/b.h\"",
             "vision may not include cache/b.h"},
        Case{"to_server", "engine/text/a.cc", "#include \"server/b.h\"",
             "engine may not include server/b.h"},
        Case{"to_tests", "server/a.cc", "#include \"tests/b.h\"",
             "server may not include tests/b.h"},
        Case{"tests_use_all", "tests/e2e/a.cc", "#include \"server/b.h\"", ""},
        Case{"proto", "engine/text/a.cc", "#include \"tessera/v1/inference.pb.h\"",
             "engine may not include tessera/v1/inference.pb.h"},
        Case{"proto_server", "server/a.cc", "#include \"tessera/v1/inference.pb.h\"", ""},
        Case{"grpc", "engine/text/a.h", "#include <grpcpp/grpcpp.h>",
             "engine may not know grpcpp/grpcpp.h"},
        Case{"spdlog", "cache/a.cc", "#include <spdlog/spdlog.h>",
             "cache may not know spdlog/spdlog.h"},
        Case{"prometheus", "engine/text/a.cc", "#include <prometheus/counter.h>",
             "engine may not know prometheus/counter.h"},
        Case{"grpc_server", "server/a.cc", "#include <grpcpp/grpcpp.h>", ""},
        Case{"relative", "engine/text/a.cc", "#include \"neighbour.h\"",
             "include neighbour.h by its path from the root"},
        Case{"climbs", "cache/a.cc", "#include \"../other/b.h\"",
             "include ../other/b.h climbs out of its folder"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Rooms, SyntheticTree,
    ::testing::Values(
        Case{"up_a_room", "engine/text/a.cc", "#include \"engine/runtime/b.h\"",
             "engine/text may not include engine/runtime/b.h"},
        Case{"down_a_room", "engine/runtime/a.cc", "#include \"engine/text/b.h\"", ""},
        Case{"same_room", "engine/runtime/a.cc", "#include \"engine/runtime/b.h\"", ""},
        Case{"to_the_top", "cache/pages/a.cc", "#include \"cache/b.h\"",
             "cache/pages may not include cache/b.h"},
        Case{"from_the_top", "cache/a.cc", "#include \"cache/pages/b.h\"", ""},
        Case{"nested", "kernels/cuda/gemm/a.cc", "#include \"kernels/cuda/b.h\"",
             "kernels/cuda/gemm may not include kernels/cuda/b.h"},
        Case{"client_to_server", "client/cli/a.cc", "#include \"server/net/b.h\"",
             "client may not include server/net/b.h"},
        Case{"server_to_client", "server/grpc/a.cc", "#include \"client/cli/b.h\"",
             "server may not include client/cli/b.h"}),
    [](const auto& info) { return info.param.name; });

TEST_F(RoomTest, EveryRoomIsInTheTable) {
  Write("engine/attic/a.h", "");
  EXPECT_THAT(CheckTree(root_).violations,
              ElementsAre("engine/attic: no room in tests/layers/layer_table.cc"));
}

TEST_F(RoomTest, AFullRoomIsToldAndACrowdedOneFails) {
  for (int i = 0; i < 16; ++i) {
    Write(absl::StrCat("engine/text/unit", i, ".h"), "");
    Write(absl::StrCat("engine/text/unit", i, ".cc"), "");
  }
  EXPECT_THAT(CheckTree(root_).violations, IsEmpty());
  EXPECT_THAT(CheckTree(root_).warnings, ElementsAre("engine/text: 16 units, more than 15"));
  for (int i = 16; i < 21; ++i) Write(absl::StrCat("engine/text/unit", i, ".h"), "");
  EXPECT_THAT(CheckTree(root_).violations, ElementsAre("engine/text: 21 units, more than 20"));
}

INSTANTIATE_TEST_SUITE_P(
    CudaAndHeaders, SyntheticTree,
    ::testing::Values(Case{"cu_absl", "kernels/cuda/a.cu", "#include \"absl/status/status.h\"",
                           "a .cu file may not include absl/status/status.h"},
                      Case{"cu_legal", "kernels/cuda/a.cu",
                           "#include <cuda_fp16.h>\n#include <cstdint>\n#include \"base/half.h\"",
                           ""},
                      Case{"cuda_in_engine", "engine/text/a.cc", "#include <cuda_runtime.h>",
                           "engine may not know cuda_runtime.h"},
                      Case{"ifdef", "kernels/a.h", "#ifdef TESSERA_CUDA",
                           "header depends on the macro TESSERA_CUDA"},
                      Case{"if_defined", "kernels/a.h",
                           "#if defined(__CUDACC__) && !defined(NDEBUG)",
                           "header depends on the macro NDEBUG"},
                      Case{"compiler_macro", "kernels/a.h", "#if defined(__CUDACC__)  // NVCC", ""},
                      Case{"ifdef_in_source", "kernels/a.cc", "#ifdef TESSERA_CUDA", ""}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Clock, SyntheticTree,
    ::testing::Values(Case{"wall_clock", "server/a.cc", "const absl::Time start = absl::Now();",
                           "absl::Now() is for dates, ToUnixSeconds(absl::Now())"},
                      Case{"date", "server/a.cc", "x = absl::ToUnixSeconds(absl::Now());", ""},
                      Case{"clock_in_comment", "engine/text/a.cc", "// absl::Now() may jump", ""},
                      Case{"clock_in_tests", "tests/a.cc", "x = absl::Now();", ""}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    CMake, SyntheticTree,
    ::testing::Values(
        Case{"dep_up", "cache/CMakeLists.txt", "tessera_library(cache DEPS tessera_engine)",
             "cache may not depend on tessera_engine"},
        Case{"dep_down", "engine/CMakeLists.txt", "tessera_library(engine DEPS tessera_cache)", ""},
        Case{"dep_grpc", "engine/CMakeLists.txt", "  PRIVATE_DEPS gRPC::grpc++)",
             "engine may not link gRPC::grpc++"},
        Case{"dep_grpc_proto", "proto/CMakeLists.txt", "target_link_libraries(x gRPC::grpc++)", ""},
        Case{"dep_comment", "engine/CMakeLists.txt", "# not tessera_server", ""}),
    [](const auto& info) { return info.param.name; });

class LengthTest : public SyntheticTree {};

TEST_P(LengthTest, IsJudgedByLines) {
  std::string lines;
  for (int i = 0; i < std::stoi(GetParam().content); ++i) absl::StrAppend(&lines, "//\n");
  Write(GetParam().path, lines);
  const Findings findings = CheckTree(root_);
  const bool fails = !GetParam().violation.empty();
  EXPECT_EQ(findings.violations.size(), fails ? 1u : 0u);
  EXPECT_EQ(findings.warnings.size(), GetParam().name.starts_with("goal") ? 1u : 0u);
}

INSTANTIATE_TEST_SUITE_P(Lines, LengthTest,
                         ::testing::Values(Case{"legal_header", "cache/a.h", "150", ""},
                                           Case{"goal_header", "cache/a.h", "151", ""},
                                           Case{"legal_source", "cache/a.cc", "300", ""},
                                           Case{"goal_source", "cache/a.cc", "400", ""},
                                           Case{"long_source", "cache/a.cc", "401", "fails"},
                                           Case{"long_cu", "kernels/cuda/a.cu", "401", "fails"},
                                           Case{"goal_table",
                                                "server/observability/metrics_table.cc", "401", ""},
                                           Case{"goal_test", "tests/cache/a.cc", "500", ""},
                                           Case{"long_test", "tests/cache/a.cc", "501", "fails"}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera::layers
