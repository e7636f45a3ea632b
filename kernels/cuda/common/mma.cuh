// Wrappers of cp.async, ldmatrix and mma.sync (PTX ISA): they bring matrices of halves from global
// memory through shared memory to the tensor cores.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::cuda {

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Returns the offset, in halves, of 16-byte piece `piece` of row `row` in shared memory with rows
// of 64 halves. The piece is at position piece ^ row, so that a matrix's eight rows are in
// different banks. This is the 128-byte swizzle of wgmma and TMA if the memory is aligned to 1024
// bytes.
__device__ inline int Swizzled(int row, int piece) { return row * 64 + (piece ^ row) % 8 * 8; }

// Copies 16 bytes from global to shared memory; writes zeros if not `there`.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ inline void WaitCopies() { asm volatile("cp.async.wait_all;"); }
// CommitCopies closes a group with all copies that the thread has started since the last group.
// WaitCopiesBut waits for all groups except the last kPending.
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ void WaitCopiesBut() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// Loads four 8x8 matrices. Lane 8 i + r passes the address of row r (16 bytes) of matrix i. A lane
// receives element (lane / 4, 2 (lane % 4)) and the next one of each matrix, or of its transpose.
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

// Loads two matrices; lanes 0 to 15 pass the addresses.
__device__ inline void LoadMatricesTransposed(uint32_t from, uint32_t (&m)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(m[0]), "=r"(m[1])
               : "r"(from));
}

// Computes c[16, 8] += a[16, 16] b[16, 8] with half inputs and float sums. Rows r of c and a are in
// lanes with lane / 4 = r % 8. Columns n of c are in lanes with lane % 4 = n / 2; those of b in
// lanes with lane / 4 = n.
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
