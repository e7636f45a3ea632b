// Instructions of Hopper's warpgroups (sm_90a): asynchronous products of matrices in shared memory,
// barriers that count bytes, copies by the tensor memory unit. PTX ISA 9.0, wgmma and mbarrier.
#pragma once

#include <cuda.h>

#include "kernels/cuda/attention/prefill/tensor_tiles.cuh"
#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// Whether what is being compiled is for a device that has all this. A kernel is else empty, and for
// blocks of one warp, by which the host knows that it is not there (HasKernel).
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool kHasWarpgroups = true;
#else
constexpr bool kHasWarpgroups = false;
#endif
constexpr int BlockBound(int threads) { return kHasWarpgroups ? threads : 32; }
template <class Args>
bool HasKernel(void (*kernel)(Args), int threads) {
  cudaFuncAttributes attributes;
  TESSERA_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.maxThreadsPerBlock >= threads;
}

// --- barriers in shared memory: a phase ends with its last arrival and its last byte ---
__device__ inline void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals));
}
__device__ inline void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ inline void ExpectBytes(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
// Until the phase of this parity has ended. Of a new barrier, that of parity 1 has.
__device__ inline void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  uint32_t ended;
  do {
    asm volatile(
        "{\n.reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ended;\n}"
        : "=r"(ended)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (ended == 0);
}

// --- ordering ---
// Of this thread's writes to shared memory before what wgmma and the tensor memory unit do there.
__device__ inline void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Of initialised barriers before copies that arrive at them.
__device__ inline void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Among `threads` threads of the block that name the same barrier, 1 to 15.
__device__ inline void NamedBarrierSync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- registers a thread has, of a kernel that is launched with fewer or more; by a warpgroup ---
template <int kRegisters>
__device__ void DeallocateRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void AllocateRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- copies ---
// A box of `map` at (0, y, 0) to shared memory; its bytes count at `barrier`.
__device__ inline void CopyBox(__half* to, const CUtensorMap* map, int y, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %2}], [%4];" ::"r"(SharedAddress(to)),
      "l"(map), "r"(0), "r"(y), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ inline void PrefetchToL2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// --- products: a warpgroup's 64 rows, float sums in registers as those of mma.m16n8, a warp's 16
// rows each. Between the first instruction and the wait nobody may touch the registers. ---
__device__ inline void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all but the last kPending commits are done.
template <int kPending>
__device__ void WaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of the registers over this place.
template <int kRows>
__device__ void Pin(float (&x)[kRows][4]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    asm volatile("" : "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])::"memory");
  }
}
template <int kRows>
__device__ void Pin(uint32_t (&x)[kRows][4]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
  }
}

// Descriptors of the second factor in a tile (TileOffset) at 1024 bytes: 128-byte swizzle, eight
// rows every 1024 bytes, 64 channels every kTile * 128.
__device__ inline uint64_t TileMatrix(const __half* tile) {
  constexpr uint64_t kShape =
      uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{kTile * 128 / 16} << 16;
  return kShape | (SharedAddress(tile) & 0x3ffff) / 16;
}
// Channels 16 k .. 16 k + 15 of all rows; rows 16 k .. 16 k + 15 of all channels.
__device__ inline uint64_t ChannelStep(uint64_t tile, int k) {
  return tile + (k / 4 * kTile * 128 + k % 4 * 32) / 16;
}
__device__ inline uint64_t TokenStep(uint64_t tile, int k) { return tile + k * 16 * 128 / 16; }

#define TESSERA_ROW(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define TESSERA_8ROWS(i)                                                                          \
  TESSERA_ROW(i), TESSERA_ROW(i + 1), TESSERA_ROW(i + 2), TESSERA_ROW(i + 3), TESSERA_ROW(i + 4), \
      TESSERA_ROW(i + 5), TESSERA_ROW(i + 6), TESSERA_ROW(i + 7)
// c[64, N] = a[64, 16] b[16, N], or, if `add`, += that; halves. kTransposed: b's columns, not its
// rows, lie one after the other.
template <bool kTransposed>
__device__ void MultiplyGroup(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}"
      : TESSERA_8ROWS(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(static_cast<int>(kTransposed)));
}
template <bool kTransposed>
__device__ void MultiplyGroup(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, %70;\n}"
      : TESSERA_8ROWS(0), TESSERA_8ROWS(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(static_cast<int>(kTransposed)));
}
#undef TESSERA_8ROWS
#undef TESSERA_ROW

}  // namespace tessera::cuda
