// Attention of the CPU backend. It divides a call into tasks of one KV head and a block of queries.
//
// A query is one (row, head) pair. The heads of a GQA group and neighbouring rows share a task, so
// each page is read and converted once for all of them. Threads: one thread at a time (the pool's
// caller).
#pragma once

#include <atomic>
#include <vector>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace tessera {

// Returns the scale of the Walsh-Hadamard transform of n elements: the rounded 1 / sqrt(n).
float HadamardScale(int64_t n);

class AttentionRunner {
 public:
  AttentionRunner(const CpuKernels& kernels, ThreadPool& pool);

  // The operations Ops::PagedAttention and Ops::VitAttention.
  void Paged(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
             int64_t num_sequences, int64_t heads, const KvLayerView& kv, float* out);
  void Vit(const float* qkv, int64_t images, int64_t tokens, int64_t heads, int64_t dim,
           float* out);
  int64_t clamped_slopes() const { return clamped_slopes_; }

 private:
  struct Scratch;  // one worker's query block and converted page
  struct Tile;     // up to 16 tokens of one page
  struct Task {
    int32_t sequence;
    int32_t kv_head;
    int32_t begin, end;  // queries; a query is row * group + head within the group
    int64_t tokens;      // stored in the sequence
    bool transformed;
    LogitMap map;
  };

  // Calls body(tile) for all stored tokens of the task's sequence.
  template <class Body>
  static void ForTiles(const Task& task, const KvLayerView& kv, int64_t dim, const Body& body);
  // Points `page` at K or V of the tile's tokens.
  void LoadRows(const Tile& tile, int64_t dim, int head, bool value, bool convert, Scratch& scratch,
                AttendPage& page) const;
  // The first of two passes for mapped logits: reads the mapped runs' K and finds each query's map.
  void MapLogits(const Task& task, const KvLayerView& kv, int64_t dim, bool convert,
                 Scratch& scratch, AttendPage& page);
  void PagedTask(const Task& task, const float* qkv, const int32_t* query_begin, int64_t heads,
                 const KvLayerView& kv, float* out, Scratch& scratch);
  void VitTask(const float* qkv, int64_t tokens, int64_t heads, int64_t dim, int64_t head,
               int64_t begin, int64_t end, float* out, Scratch& scratch) const;
  template <class Body>
  void ForEach(int64_t tasks, int64_t multiply_adds, const Body& body);

  const CpuKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Buffer> scratch_;  // per worker
  std::vector<Task> tasks_;
  std::atomic<int64_t> clamped_slopes_{0};
};

}  // namespace tessera
