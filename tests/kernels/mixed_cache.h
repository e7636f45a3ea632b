// A paged cache whose runs have any formats, filled by MoveTokens from random RAW16 tokens. Unused
// bytes are 0xff, a NaN as half, so that a read of one shows.
#pragma once

#include <vector>

#include "kernels/layout/quantize.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {

// Tokens [first, first + count) of a pool of random tokens, stored in `format`.
struct MixedRun {
  Format format;
  int first, count;
  LogitMap map = {};
};

struct MixedCase {
  int kv_heads, head_dim;
  std::vector<std::vector<MixedRun>> runs;  // per sequence
};

class MixedCache {
 public:
  // `ops` quantizes. `values` seeds the pool of `pool` tokens, `shuffle` the positions of the
  // pages.
  MixedCache(Ops& ops, const MixedCase& shape, const QuantRule& rule, int pool, uint64_t shuffle,
             uint64_t values);
  KvLayerView view() const;
  const KvGeometry& geometry() const { return geometry_; }
  uint8_t* arena() { return memory_.get(); }
  const std::vector<uint8_t> Bytes() const { return {memory_.get(), memory_.get() + bytes_}; }
  KvSlot PoolSlot(int token) const;  // in RAW16
  // Returns an element of token `token` of sequence `s`, counted over its runs, and its parts s c
  // and m if the page has its scale; otherwise s c = 0 and m is the value.
  struct Element {
    float x;
    double scale, code, offset;
  };
  Element At(int s, int token, int head, bool value, int i) const;
  const KvRun& RunOf(int s, int token) const;
  int Tokens(int s) const;
  // Shortens the last run of sequence s to n tokens.
  void TruncateLast(int s, int n) { runs_[run_begin_[s + 1] - 1].tokens = n; }

 private:
  MixedCase shape_;
  KvGeometry geometry_;
  int64_t bytes_ = 0;
  Buffer memory_;
  std::vector<PageId> pool_pages_;
  std::vector<PageId> pages_;
  std::vector<KvRun> runs_;
  std::vector<int32_t> run_begin_;
};

// Returns bounds of |out - exact|, [rows, heads, head_dim], for a backend's PagedAttention over the
// stored values.
std::vector<double> MixedBounds(const BackendCase& backend, const MixedCache& cache,
                                const std::vector<float>& qkv, int heads,
                                const std::vector<int32_t>& query_begin);

}  // namespace tessera::testing
