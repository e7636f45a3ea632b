// Matrices of halves on their way from global memory through shared memory to tensor cores.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::cuda {

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Where 16-byte piece `piece` of row `row` lies, in halves, in shared memory of rows of 64 halves:
// at piece ^ row, so that the eight rows of a matrix lie in different banks. That is the 128-byte
// swizzle of wgmma and of the tensor memory unit, if the memory begins at 1024 bytes.
__device__ inline int Swizzled(int row, int piece) { return row * 64 + (piece ^ row) % 8 * 8; }

// 16 bytes from global to shared memory; zeros if not `there`.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ inline void WaitCopies() { asm volatile("cp.async.wait_all;"); }
// Groups of copies, each all that its thread began since the last; waits for all but the last
// kPending groups.
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ void WaitCopiesBut() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// Four 8x8 matrices, of which lane 8 i + r says where row r of the i-th lies (16 bytes): element
// (lane / 4, 2 (lane % 4)) and the next of the matrix, or of its transpose.
__device__ inline void LoadMatrices(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}
__device__ inline void LoadMatricesTransposed(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}

// Two matrices, by lanes 0 to 15.
__device__ inline void LoadMatricesTransposed(uint32_t from, uint32_t (&m)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(m[0]), "=r"(m[1])
               : "r"(from));
}

// c[16, 8] += a[16, 16] b[16, 8], half operands, float sums. Row r of c and a: lane / 4 = r % 8;
// column n of c: lane % 4 = n / 2, of b: lane / 4 = n.
__device__ inline void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t Pack(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&h);
}

}  // namespace tessera::cuda
