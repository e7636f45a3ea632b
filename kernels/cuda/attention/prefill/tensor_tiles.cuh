// Tiles of a sequence's tokens in shared memory as rows of halves, for pages of any format.
#pragma once

#include "kernels/cuda/attention/paged/add_tokens.cuh"
#include "kernels/cuda/attention/paged/tensor_codes.cuh"

namespace tessera::cuda {

constexpr int kThreads = 128, kTile = 64;  // threads that share a tile; tokens per tile

// Up to kTile tokens of one run, from its token `at` on. kTile is a multiple of every format's
// page.
struct Tile {
  const KvRun* run;
  int at, first, tokens;  // first: `at` counted over the sequence
  bool mapped;            // the run has a LogitMap

  // Returns the page id of token `at`.
  __device__ const PageId* Pages(const PagedArgs& args, int page_tokens) const {
    return args.kv.pages + run->first_page + at / page_tokens;
  }
};

// Iterates over the tiles of a sequence that begin before `end`, in order.
class Tiles {
 public:
  __device__ Tiles(const PagedArgs& args, int s, int end)
      : run_(args.kv.runs + args.kv.run_begin[s]), end_(end) {}
  __device__ bool more() const { return first_ + at_ < end_; }
  __device__ bool Next(Tile* tile) {
    if (!more()) return false;
    const int tokens = run_->tokens;
    *tile = {run_, at_, first_ + at_, min(kTile, tokens - at_), !run_->map.identity()};
    at_ += kTile;
    if (at_ >= tokens) {
      first_ += tokens;
      at_ = 0;
      ++run_;
    }
    return true;
  }

 private:
  const KvRun* run_;
  int end_, first_ = 0, at_ = 0;
};

// Returns the offset of the eight channels c of a tile's row t in shared memory. Groups of 64
// channels follow each other.
__device__ inline int TileOffset(int t, int c) { return Swizzled(c / 8 * kTile + t, c); }

// Starts the copy of a RAW16 tile's K and V rows. `head` is the address of K in page 0.
template <int kDim>
__device__ void CopyTile(const PagedArgs& args, const uint8_t* head, const Tile& tile, __half* keys,
                         __half* values, int thread) {
  constexpr int kPieces = kDim / 8, kPage = PageTokens(Format::kRaw16);
  const PageId* pages = tile.Pages(args, kPage);
#pragma unroll
  for (int i = 0; i < kTile * kPieces / kThreads; ++i) {
    const int at = i * kThreads + thread, t = at / kPieces, c = at % kPieces;
    const bool there = t < tile.tokens;
    const uint8_t* from =
        there ? head + pages[t / kPage] * kPageUnitBytes + (t % kPage) * kDim * 2 + c * 16 : head;
    const int to = TileOffset(t, c);
    CopyAsync(SharedAddress(keys + to), from, there);
    CopyAsync(SharedAddress(values + to), from + (there ? Raw16Offset(kDim, 0, true, 0) : 0),
              there);
  }
}

// Unpacks a tile of any other format, rounded to half.
template <int kDim>
__device__ void UnpackTile(const PagedArgs& args, int head, const Tile& tile, __half* keys,
                           __half* values, int thread) {
  constexpr int kPieces = kDim / 8;
  const KvRun run = *tile.run;
  const PageParts& parts = args.formats[static_cast<int>(run.format)];
  const PageId* pages = tile.Pages(args, parts.tokens);
  const uint8_t* header = HeaderHead(args.kv.arena, parts, run, head);
  for (int at = thread; at < kTile * kPieces; at += kThreads) {
    const int t = at / kPieces, c = at % kPieces, to = TileOffset(t, c);
#pragma unroll
    for (int value = 0; value < 2; ++value) {
      float x[8] = {};
      if (t < tile.tokens) {
        const uint8_t* from = args.kv.arena + pages[t / parts.tokens] * kPageUnitBytes +
                              int64_t{head} * parts.head_bytes;
        LoadCodes(from, header, parts.part[value], parts.tokens, t % parts.tokens, c, x);
      }
      *reinterpret_cast<uint4*>((value == 0 ? keys : values) + to) = {
          Pack(x[0], x[1]), Pack(x[2], x[3]), Pack(x[4], x[5]), Pack(x[6], x[7])};
    }
  }
}

// Loads a tile with kThreads threads; this one is number `thread`.
template <int kDim>
__device__ void FetchTile(const PagedArgs& args, int head, const Tile& tile, __half* keys,
                          __half* values, int thread) {
  if (tile.run->format == Format::kRaw16) {
    CopyTile<kDim>(args, args.kv.arena + Raw16Offset(kDim, head, false, 0), tile, keys, values,
                   thread);
  } else {
    UnpackTile<kDim>(args, head, tile, keys, values, thread);
  }
}

}  // namespace tessera::cuda
