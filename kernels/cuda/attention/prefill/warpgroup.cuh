// Wrappers of Hopper's warpgroup instructions (sm_90a): asynchronous matrix products from shared
// memory, mbarriers that count bytes, and TMA copies. Source: PTX ISA 9.0, wgmma and mbarrier.
#pragma once

#include <cuda.h>

#include "kernels/cuda/attention/prefill/tensor_tiles.cuh"
#include "kernels/cuda/common/check.h"

namespace tessera::cuda {

// Whether this compilation is for a device with all these instructions. Otherwise the kernel is
// empty and bounded to blocks of one warp, by which the host recognises that it is missing
// (HasKernel).
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
// Waits until the phase of this parity has ended. A new barrier counts as having ended parity 1.
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
// Orders this thread's writes to shared memory before accesses by wgmma and TMA.
__device__ inline void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Orders the initialisation of barriers before copies that arrive at them.
__device__ inline void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Synchronises `threads` threads of the block that name the same barrier, 1 to 15.
__device__ inline void NamedBarrierSync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- reallocation of a thread's registers, by a warpgroup ---
template <int kRegisters>
__device__ void DeallocateRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void AllocateRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- copies ---
// Copies a box of `map` at (0, y, 0) to shared memory; its bytes count at `barrier`.
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

// --- products: a warpgroup has 64 rows, each warp 16 of them, with float sums in registers laid
// out as by mma.m16n8. Between the first instruction and the wait no code may touch the registers.
// ---
__device__ inline void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until all but the last kPending commits are done.
template <int kPending>
__device__ void WaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of the registers across this point.
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

// Returns the descriptor of the second factor in a tile (TileOffset) that is aligned to 1024 bytes:
// 128-byte swizzle, eight rows every 1024 bytes, 64 channels every kTile * 128 bytes.
__device__ inline uint64_t TileMatrix(const __half* tile) {
  constexpr uint64_t kShape =
      uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{kTile * 128 / 16} << 16;
  return kShape | (SharedAddress(tile) & 0x3ffff) / 16;
}
// Return the descriptor of channels 16 k .. 16 k + 15 of all rows, and of rows 16 k .. 16 k + 15 of
// all channels.
__device__ inline uint64_t ChannelStep(uint64_t tile, int k) {
  return tile + (k / 4 * kTile * 128 + k % 4 * 32) / 16;
}
__device__ inline uint64_t TokenStep(uint64_t tile, int k) { return tile + k * 16 * 128 / 16; }

#define TESSERA_ROW(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define TESSERA_8ROWS(i)                                                                          \
  TESSERA_ROW(i), TESSERA_ROW(i + 1), TESSERA_ROW(i + 2), TESSERA_ROW(i + 3), TESSERA_ROW(i + 4), \
      TESSERA_ROW(i + 5), TESSERA_ROW(i + 6), TESSERA_ROW(i + 7)
// Computes c[64, N] = a[64, 16] b[16, N], or += if `add`; a and b are halves. kTransposed: b's
// columns, not its rows, are contiguous.
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
