// Prefill on Hopper's warpgroups: as tensor_prefill.cuh, but with wgmma, TMA and warp
// specialisation.
#include <cstring>

#include "kernels/cuda/attention/prefill/warpgroup_rows.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {
namespace {

// A block takes kQueries queries of one KV head, 64 per consumer warpgroup. A producer warpgroup
// loads tiles into a ring of stages, across the borders of work items, so that consumers do not
// wait for memory. TMA copies whole tiles of 16-bit pages; the producer's threads unpack other
// tiles.
constexpr int kGroups = 2, kGroupRows = 64, kQueries = kGroups * kGroupRows;
constexpr int kBlock = kThreads + kGroups * 128;
constexpr int kStages = 6;
// Register budget per thread after setmaxnreg redistributes the registers that kBlock threads were
// launched with.
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

// The content of a stage, for its consumers.
struct StageTile {
  int first;
  uint8_t tokens;
  bool mapped, last;  // last: the work item's last tile
  uint8_t unused;
};
struct Stage {
  PrefillWork work;  // with 0 queries: no more work
  StageTile tile;
};

template <int kDim>
struct alignas(1024) Shared {
  __half keys[kStages][kTile * kDim], values[kStages][kTile * kDim];
  uint64_t keys_full[kStages], values_full[kStages], empty[kStages];
  Stage stages[kStages];
  int next_work;

  // A position in the ring. `phase` is the parity of its next use.
  struct PipelineState {
    int stage = 0;
    uint32_t phase = 0;
    __device__ void Next() {
      if (++stage < kStages) return;
      stage = 0;
      phase ^= 1;
    }
  };
};

// Returns `from` as the warp's first lane reads it. That lane also releases the stage, so no other
// lane can read the value later.
template <class T>
__device__ T FromFirstLane(const T& from) {
  static_assert(sizeof(T) % sizeof(int) == 0, "");
  int words[sizeof(T) / sizeof(int)] = {};
  if (threadIdx.x % 32 == 0) memcpy(words, &from, sizeof(T));
#pragma unroll
  for (int& word : words) word = __shfl_sync(~0u, word, 0);
  T made;
  memcpy(&made, words, sizeof(T));
  return made;
}

constexpr int kRaw16Page = PageTokens(Format::kRaw16);
static_assert(kThreads / 32 * kRaw16Page == kTile, "each producer warp loads one page of a tile");

// Starts the copy of one KV head of a RAW16 page, page number `at` of the tile. One thread calls
// it.
template <int kDim>
__device__ void CopyPage(const PagedArgs& args, int head, PageId page, int at, int stage,
                         Shared<kDim>& shared) {
#pragma unroll
  for (int value = 0; value < 2; ++value) {
    uint64_t* there = value != 0 ? &shared.values_full[stage] : &shared.keys_full[stage];
    __half* to = (value != 0 ? shared.values : shared.keys)[stage] + at * kRaw16Page * 64;
    ExpectBytes(there, kRaw16Page * kDim * 2);
#pragma unroll
    for (int part = 0; part < kDim / 64; ++part) {
      const auto in_page = static_cast<PageId>(
          (Raw16Offset(kDim, head, value != 0, 0) + part * 128) / kPageUnitBytes);
      CopyBox(to + part * kTile * 64, &args.raw16_map, static_cast<int>(page + in_page), there);
    }
  }
}

// Prefetches the work item's queries to L2 before the consumers need them.
template <int kDim>
__device__ void PrefetchQueries(const PagedArgs& args, const PrefillWork& work) {
  constexpr int kLine = 32, kLines = kDim / kLine;  // floats
  const int64_t row_floats = int64_t{args.heads + 2 * args.kv.geometry.kv_heads} * kDim;
  for (int i = threadIdx.x; i < kQueries * kLines; i += kThreads) {
    const int query = work.first + i / kLines;
    if (query >= work.queries) break;
    PrefetchToL2(args.qkv + work.Row(query) * row_floats + work.Head(query) * kDim +
                 i % kLines * kLine);
  }
}

// Loads the tiles of all work items into the ring; a stage with 0 queries ends it.
template <int kDim>
__device__ void ProduceTiles(const PagedArgs& args, Shared<kDim>& shared) {
  constexpr int kWorkBarrier = 1;
  typename Shared<kDim>::PipelineState state;
  const int items = args.plan.prefill_begin[args.sequences] * args.kv.geometry.kv_heads;
  const auto begin = [&] { WaitBarrier(&shared.empty[state.stage], state.phase ^ 1); };
  const auto end = [&] {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      Arrive(&shared.keys_full[state.stage]);
      Arrive(&shared.values_full[state.stage]);
    }
    state.Next();
  };
  while (true) {
    NamedBarrierSync(kWorkBarrier, kThreads);
    if (threadIdx.x == 0) shared.next_work = atomicAdd(&args.plan.next[1], 1);
    NamedBarrierSync(kWorkBarrier, kThreads);
    if (shared.next_work >= items) break;
    const PrefillWork work(args,
                           items - 1 - shared.next_work);  // last rows first: they see most tokens
    PrefetchQueries<kDim>(args, work);
    Tiles tiles(args, work.s, work.Limit(min(work.first + kQueries, work.queries) - 1));
    Tile tile;
    while (tiles.Next(&tile)) {
      const bool whole = tile.run->format == Format::kRaw16 && tile.tokens == kTile;
      PageId page = 0;  // the warp's page; requested before the wait
      if (whole) page = tile.Pages(args, kRaw16Page)[threadIdx.x / 32];
      begin();
      if (threadIdx.x == 0) {
        shared.stages[state.stage] = {
            work, {tile.first, static_cast<uint8_t>(tile.tokens), tile.mapped, !tiles.more(), 0}};
      }
      if (!whole) {
        // Reading the thread id here keeps the compiler from computing and keeping all its offsets
        // outside the loop.
        int thread;
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
        FetchTile<kDim>(args, work.kv_head, tile, shared.keys[state.stage],
                        shared.values[state.stage], thread);
        WaitCopies();
        FenceAsyncProxy();
      } else if (threadIdx.x % 32 == 0) {
        CopyPage(args, work.kv_head, page, threadIdx.x / 32, state.stage, shared);
      }
      end();
    }
  }
  begin();
  if (threadIdx.x == 0) shared.stages[state.stage].work.queries = 0;
  end();
}

// Computes the work items whose tiles come through the ring. The body exceeds 60 lines: it is one
// state machine over the ring, whose lambdas share the registers of both tiles.
template <int kDim>
__device__ void ConsumeTiles(const PagedArgs& args, Shared<kDim>& shared) {
  const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
  const auto release = [&](int stage) {
    __syncwarp();
    if (stage >= 0 && lane == 0) Arrive(&shared.empty[stage]);
  };
  WarpgroupRows<kDim> rows;
  float logits[2][kTile / 8][4] = {};
  typename Shared<kDim>::PipelineState state;
  while (true) {
    WaitBarrier(&shared.keys_full[state.stage], state.phase);
    const PrefillWork work = FromFirstLane(shared.stages[state.stage].work);
    if (work.queries == 0) return;
    const int group_first = work.first + group * kGroupRows;
    const int first = group_first + threadIdx.x / 32 % 4 * 16 + lane / 4;
    // No row of the group sees tokens from here on.
    const int sees = group_first < work.queries
                         ? work.Limit(min(group_first + kGroupRows, work.queries) - 1)
                         : 0;
    const RowMaps maps{args, work, first};
    // The current tile's stage, and the stage whose values are being added.
    int at = state.stage, before = -1;
    uint32_t phase = state.phase;  // phase of stage `at`
    StageTile seen = FromFirstLane(shared.stages[at].tile), following = seen;
    // Returns whether the group sees the next tile of the work item.
    const auto next = [&] {
      if (following.last) return false;
      state.Next();
      WaitBarrier(&shared.keys_full[state.stage], state.phase);
      following = FromFirstLane(shared.stages[state.stage].tile);
      return following.first < sees;
    };
    const auto tile = [&] { return Tile{nullptr, 0, seen.first, seen.tokens, seen.mapped}; };
    const auto ready = [&] { WaitBarrier(&shared.values_full[at], phase); };
    const auto added = [&] { release(before); };
    const auto step = [&](int b) {
      rows.Step(tile(), logits[b], shared.values[at], shared.keys[state.stage], logits[b ^ 1], maps,
                ready, added);
      before = at;
      at = state.stage;
      phase = state.phase;
      seen = following;
    };
    const auto end = [&](int b) {
      rows.End(tile(), logits[b], shared.values[at], maps, ready, added);
      release(at);
    };
    bool taken = sees > 0;  // the tile at `state`
    if (taken) {
      rows.Init(args, work, first);
      rows.Begin(logits[0], shared.keys[at]);
      while (true) {
        if (!next()) {
          end(0);
          break;
        }
        step(0);
        if (!next()) {
          end(1);
          break;
        }
        step(1);
      }
      rows.Finish(args.Transformed(work.s));
      rows.Store(args, work, first);
      taken = at == state.stage;
    }
    for (;; taken = false) {  // skip the item's other tiles
      if (!taken) release(state.stage);
      state.Next();
      if (following.last) break;
      WaitBarrier(&shared.keys_full[state.stage], state.phase);
      following = FromFirstLane(shared.stages[state.stage].tile);
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(BlockBound(kBlock), 1)
    WarpgroupPrefillKernel(const __grid_constant__ PagedArgs args) {
  if constexpr (kHasWarpgroups) {
    extern __shared__ __align__(1024) uint8_t shared_bytes[];
    auto& shared = *reinterpret_cast<Shared<kDim>*>(shared_bytes);
    TriggerDependentLaunch();
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i) {
        InitBarrier(&shared.keys_full[i], kThreads / 32);
        InitBarrier(&shared.values_full[i], kThreads / 32);
        InitBarrier(&shared.empty[i], kGroups * 4);
      }
      FenceBarrierInit();
    }
    __syncthreads();
    SynchronizeGridDependency();
    if (threadIdx.x < kThreads) {
      DeallocateRegisters<kProducerRegisters>();
      ProduceTiles<kDim>(args, shared);
    } else {
      AllocateRegisters<kConsumerRegisters>();
      ConsumeTiles<kDim>(args, shared);
    }
  }
}

}  // namespace

TensorKernel WarpgroupPrefillFor(int64_t dim) {
  TESSERA_CHECK(HasTensorAttention(dim));
  TensorKernel made{dim == 64 ? WarpgroupPrefillKernel<64> : WarpgroupPrefillKernel<128>, kQueries,
                    kBlock, static_cast<int>(dim == 64 ? sizeof(Shared<64>) : sizeof(Shared<128>))};
  if (!HasKernel(made.kernel, kBlock)) return {};
  made.reads_map = true;
  TESSERA_CUDA_CHECK(cudaFuncSetAttribute(made.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          made.shared_bytes));
  return made;
}

CUtensorMap MapRaw16(const uint8_t* arena, int64_t dim) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  TESSERA_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                      cudaEnableDefault, &found));
  TESSERA_CHECK(found == cudaDriverEntryPointSuccess);
  constexpr int kPage = PageTokens(Format::kRaw16);
  const cuuint64_t sizes[] = {64, uint64_t{1} << 31, kPage};
  const cuuint64_t strides[] = {kPageUnitBytes, static_cast<cuuint64_t>(dim) * 2};
  const cuuint32_t box[] = {64, 1, kPage}, every[] = {1, 1, 1};
  CUtensorMap map;
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  TESSERA_CHECK(encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, const_cast<uint8_t*>(arena), sizes,
                       strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                       CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                       CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
  return map;
}

}  // namespace tessera::cuda
