// Loads one head's pages of a run for a warp, in order.
#pragma once

#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/common/mma.cuh"

namespace tessera::cuda {

// A run's pages below `high`; any later index gives the last page.
struct PageList {
  const PageId* pages;
  int last;
  __device__ PageList(const PagedArgs& args, const KvRun& run, int high)
      : pages(args.kv.pages + run.first_page), last(high - 1) {}
  __device__ PageId operator[](int p) const { return pages[min(p, last)]; }
};

// Pages that are prefetched into L2 two pages ahead and then loaded into registers.
template <int64_t kHeadBytes>
class PrefetchedPages {
 public:
  __device__ PrefetchedPages(const PagedArgs& args, const KvRun& run, int low, int high, int head)
      : list_(args, run, high), base_(args.kv.arena + head * kHeadBytes) {
    first_ = Find(list_[low]);
    second_ = list_[low + 1], third_ = list_[low + 2];
    Prefetch(Find(second_));
  }
  __device__ const uint8_t* First() const { return first_; }
  // Returns page p + 1. Must be called for each page p, in order.
  __device__ const uint8_t* Behind(int p) {
    const uint8_t* next = Find(second_);
    if (p + 2 <= list_.last) Prefetch(Find(third_));
    second_ = third_;
    third_ = list_[p + 3];
    return next;
  }

 private:
  __device__ const uint8_t* Find(PageId page) const { return base_ + page * kPageUnitBytes; }
  __device__ static void Prefetch(const uint8_t* head) {
#pragma unroll
    for (int64_t first = 0; first < kHeadBytes; first += 32 * 128) {
      const int64_t at = first + threadIdx.x % 32 * 128;
      if (at < kHeadBytes) asm volatile("prefetch.global.L2 [%0];" ::"l"(head + at));
    }
  }

  PageList list_;
  const uint8_t *base_, *first_;
  PageId second_, third_;  // the next page, and the one after it
};

// Shared memory of a warp's ring. Together with a block's other shared memory it is 48 KiB: four
// blocks fit on a multiprocessor of Hopper, two on any other.
constexpr int kRingBytes = 9984;
__device__ inline uint8_t* WarpRing() {
  __shared__ uint4 rings[4][kRingBytes / 16];  // one per warp of a block
  return reinterpret_cast<uint8_t*>(rings[threadIdx.x / 32]);
}

// A ring of pages in shared memory, copied (cp.async) as far ahead as fits. A page of few bytes is
// used up long before the next can arrive from memory, and registers cannot hold several.
template <int64_t kHeadBytes>
class PageRing {
 public:
  static constexpr int kStages = kRingBytes / kHeadBytes < 8 ? kRingBytes / kHeadBytes : 8;
  static constexpr bool kPays = kStages >= 3;

  __device__ PageRing(const PagedArgs& args, const KvRun& run, int low, int high, int head)
      : list_(args, run, high),
        base_(args.kv.arena + head * kHeadBytes + threadIdx.x % 32 * 16),
        ring_(SharedAddress(WarpRing())) {
    // Keeps these sums in registers; otherwise the compiler recomputes them for every page.
    asm volatile("" : "+l"(base_), "+r"(ring_));
    PageId ids[kStages];
#pragma unroll
    for (int i = 0; i < kStages; ++i) ids[i] = list_[low + i];
    __syncwarp();  // earlier contents have been read
#pragma unroll
    for (int i = 0; i + 1 < kStages; ++i) Begin(low + i, ids[i], i * kHeadBytes);
    ahead_ = ids[kStages - 1];
  }
  // Returns page p, valid until the next call. Must be called for each page p, in order.
  __device__ const uint8_t* At(int p) {
    WaitCopiesBut<kStages - 2>();
    __syncwarp();  // the previous page has been read
    Begin(p + kStages - 1, ahead_, free_);
    if (p + kStages <= list_.last) ahead_ = list_[p + kStages];
    free_ = now_;
    now_ = now_ == (kStages - 1) * kHeadBytes ? 0 : now_ + kHeadBytes;
    return static_cast<const uint8_t*>(__cvta_shared_to_generic(ring_ + free_));
  }

 private:
  __device__ void Begin(int p, PageId page, int stage) {
    if (p <= list_.last) {
      const int lane = threadIdx.x % 32 * 16;
      const uint8_t* from = base_ + page * kPageUnitBytes;
      const uint32_t to = ring_ + stage + lane;
#pragma unroll
      for (int at = 0; at < kHeadBytes; at += 32 * 16) {
        if (at + lane < kHeadBytes) CopyAsync(to + at, from + at, true);
      }
    }
    CommitCopies();
  }

  PageList list_;
  const uint8_t* base_;  // this lane's first 16 bytes in page 0
  uint32_t ring_;
  PageId ahead_;  // the next page to copy
  int now_ = 0, free_ = (kStages - 1) * kHeadBytes;
};

}  // namespace tessera::cuda
