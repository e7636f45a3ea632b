// Tiles of tokens or points in shared memory, kTileColumns channels wide, as rows of halves.
#pragma once

#include "kernels/cuda/common/mma.cuh"
#include "kernels/cuda/low_pass/grid.cuh"

namespace tessera::cuda {

constexpr int kTileColumns = 64;                   // channels that a block computes at once
constexpr int kTileThreads = kFragmentWarps * 32;  // threads of the block that fills tiles

// Returns the address of a lane's row of four matrices: rows row0 .. row0 + 15, channels 0 .. 7 and
// 8 .. 15 of `tile`. The address ^ 16 n is that of channels 8 n .. 8 n + 15 (n even).
__device__ inline uint32_t MatricesAt(const __half* tile, int row0) {
  const int lane = threadIdx.x % 32;
  return SharedAddress(tile + Swizzled(row0 + lane % 16, lane / 16));
}

// The part that a thread copies to shared memory: the same eight of kTileColumns channels of a
// layer's K or V, and the same row of every 16.
struct Copier {
  static constexpr int kPieces = kTileColumns / 8, kRows = kTileThreads / kPieces;
  static constexpr int kPage = PageTokens(Format::kRaw16), kPass = kRows * kTileColumns;
  static_assert(kRows == kPage);
  int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
  int place = Swizzled(row, piece);  // row i kRows + row is i kPass further
  const uint8_t* from = nullptr;     // the channels in the arena's first page
  bool there = false;                // whether the channels exist

  __device__ void Columns(const LowPassJob& job, int first, bool value) {
    const unsigned channel = first + piece * 8, dim = job.geometry.head_dim;
    there = channel < static_cast<unsigned>(job.channels());
    const unsigned head = there ? channel / dim : 0, in_head = there ? channel % dim : 0;
    from = job.arena + Raw16Offset(static_cast<int>(dim), static_cast<int>(head), value, 0) +
           in_head * 2;
  }
};

}  // namespace tessera::cuda
