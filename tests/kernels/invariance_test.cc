// Tests batch invariance of the CPU backend: a row's bits depend only on the row. They do not
// depend on other rows in the call, the number of threads, the instruction set, the chunks of a
// prompt or the positions of pages.
#include <cmath>

#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

// Every instruction set of this machine with 1, 2 and 3 threads; the slow one with 2 only.
std::vector<std::unique_ptr<Ops>> AllCpus() {
  std::vector<std::unique_ptr<Ops>> all;
  for (const std::string& isa : CpuInstructionSets()) {
    for (int threads : {1, 2, 3}) {
      if (isa != "scalar" || threads == 2) all.push_back(MakeCpu(isa, threads));
    }
  }
  return all;
}

std::vector<float> Slice(const std::vector<float>& v, int64_t begin, int64_t end) {
  return {v.begin() + begin, v.begin() + end};
}

TEST(InvarianceTest, ReportsInstructionSets) {
  for (const char* isa : {"avx512", "avx2"}) {
    if (!IsaAvailable(isa)) {
      GTEST_SKIP() << "this machine lacks " << isa << ": its bits are not compared";
    }
  }
}

TEST(InvarianceTest, MatMulIsOneChainOfFusedMultiplyAdds) {
  Random random(1);
  const int64_t in = 521, out = 147;  // several blocks of k and groups of columns; odd sizes
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const int64_t rows = dtype == DType::kBF16 ? 269 : 20;  // more than a chunk of rows, once
    const Stored weight(random.Normals(in * out), dtype, false);
    const std::vector<float> x = random.Normals(rows * in);
    std::vector<float> expected(rows * out);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < out; ++o) {
        float sum = 0;
        for (int64_t k = 0; k < in; ++k) sum = std::fma(x[r * in + k], weight[o * in + k], sum);
        expected[r * out + o] = sum;
      }
    }
    for (const auto& ops : AllCpus()) {
      const Linear w = ops->MakeLinear({{weight.data(), nullptr, out}}, in, dtype);
      // Calls of every size with a path of its own; small sizes only use the first rows.
      for (int64_t step : {1, 2, 3, 4, 5, 6, 7, 13, 20, 269}) {
        const int64_t end = std::min(rows, RoundUp<int64_t>(20, step));
        std::vector<float> y(end * out, NAN);
        for (int64_t r = 0; r < end; r += step) {
          ops->MatMul(w, x.data() + r * in, std::min(step, end - r), y.data() + r * out);
        }
        ExpectSameBits(y, Slice(expected, 0, end * out),
                       DTypeName(dtype) + std::string(" step ") + std::to_string(step));
      }
    }
  }
}

TEST(InvarianceTest, EpilogueAndRowOpsAgreeOnAllInstructionSets) {
  Random random(2);
  const int64_t rows = 45, cols = 131;
  const Stored weight(random.Normals(cols * cols, 0.3f), DType::kBF16, false);
  const Stored bias(random.Normals(cols), DType::kBF16, false);
  const std::vector<float> x = random.Normals(rows * cols, 3),
                           residual = random.Normals(rows * cols);
  const std::vector<float> w = random.Normals(cols), b = random.Normals(cols);
  std::vector<std::vector<float>> first;
  for (const auto& ops : AllCpus()) {
    std::vector<std::vector<float>> results;
    const Linear linear = ops->MakeLinear({{weight.data(), bias.data(), cols}}, cols, DType::kBF16);
    for (Activation act : {Activation::kGelu, Activation::kQuickGelu, Activation::kSilu}) {
      results.emplace_back(rows * cols);
      ops->MatMul(linear, x.data(), rows, results.back().data(), act, residual.data());
      std::vector<float> alone(cols);
      ops->MatMul(linear, x.data() + 7 * cols, 1, alone.data(), act, residual.data() + 7 * cols);
      ExpectSameBits(alone, Slice(results.back(), 7 * cols, 8 * cols), "row 7 alone");
    }
    results.emplace_back(rows * cols);
    ops->RmsNorm(x.data(), w.data(), rows, cols, 1e-5f, results.back().data());
    results.emplace_back(rows * cols);
    ops->LayerNorm(x.data(), w.data(), b.data(), rows, cols, 1e-5f, results.back().data());
    results.emplace_back(rows / 2 * cols);
    ops->SwiGlu(x.data(), rows / 2, cols, results.back().data());
    results.emplace_back(2 * 9 * 5 * 8);
    ops->VitAttention(x.data(), 2, 9, 5, 8, results.back().data());
    if (first.empty()) first = results;
    for (size_t i = 0; i < results.size(); ++i) {
      ExpectSameBits(results[i], first[i], "op " + std::to_string(i));
    }
  }
}

// Computes attention of a prompt's rows [0, n) in chunks with the given ends, everything else
// equal.
std::vector<float> InChunks(Ops& ops, const std::vector<float>& qkv, int heads,
                            const PagedCase& shape, uint64_t shuffle,
                            const std::vector<int>& ends) {
  PagedCache cache(shape, shuffle, 77);
  const int64_t row_floats = (heads + 2 * shape.kv_heads) * shape.head_dim;
  std::vector<float> out(qkv.size() / row_floats * heads * shape.head_dim);
  int begin = 0;
  for (int end : ends) {
    cache.Truncate(0, end);
    const int32_t query_begin[] = {0, end - begin};
    ops.PagedAttention(qkv.data() + begin * row_floats, query_begin, nullptr, 1, heads,
                       cache.view(), out.data() + begin * heads * shape.head_dim);
    begin = end;
  }
  return out;
}

TEST(InvarianceTest, AttentionDoesNotDependOnChunksPagesThreadsOrInstructionSet) {
  const int n = 75;
  std::vector<int> one_by_one;
  for (int i = 1; i <= n; ++i) one_by_one.push_back(i);
  const std::vector<std::vector<int>> chunkings = {{n},
                                                   one_by_one,
                                                   {1, n},
                                                   {n - 1, n},
                                                   {16, 32, 48, 64, n},
                                                   {7, 23, 24, 57, n},
                                                   {33, 34, 35, n}};
  for (int dim : {24, 128}) {
    for (int group : {1, 3, 8}) {
      if (dim == 24 && group != 3) continue;
      const PagedCase shape{.kv_heads = 2, .head_dim = dim, .run_tokens = {{n}}};
      const int heads = 2 * group;
      Random random(dim + group);
      const std::vector<float> qkv = random.Normals(n * (heads + 4) * dim, 2);
      std::vector<float> first;
      for (const auto& ops : AllCpus()) {
        uint64_t shuffle = 1;
        for (const std::vector<int>& ends : chunkings) {
          const std::vector<float> out = InChunks(*ops, qkv, heads, shape, shuffle++, ends);
          if (first.empty()) first = out;
          ExpectSameBits(out, first,
                         "dim " + std::to_string(dim) + " group " + std::to_string(group) +
                             " chunks " + std::to_string(ends.size()));
        }
      }
    }
  }
}

TEST(InvarianceTest, AttentionDoesNotDependOnOtherSequences) {
  const int dim = 64, heads = 4;
  const PagedCase both{.kv_heads = 2, .head_dim = dim, .run_tokens = {{9, 40}, {100}, {3}}};
  Random random(5);
  const int64_t row_floats = (heads + 4) * dim;
  const std::vector<float> qkv = random.Normals(11 * row_floats);
  for (const auto& ops : AllCpus()) {
    PagedCache cache(both, 1, 2);
    std::vector<float> together(11 * heads * dim), alone = together;
    const int32_t begin[] = {0, 3, 10, 11};
    ops->PagedAttention(qkv.data(), begin, nullptr, 3, heads, cache.view(), together.data());
    for (int s = 0; s < 3; ++s) {
      KvLayerView view = cache.view();
      view.run_begin += s;
      const int32_t rows[] = {0, begin[s + 1] - begin[s]};
      ops->PagedAttention(qkv.data() + begin[s] * row_floats, rows, nullptr, 1, heads, view,
                          alone.data() + begin[s] * heads * dim);
    }
    ExpectSameBits(together, alone, "three sequences");
  }
}

}  // namespace
}  // namespace tessera::testing
