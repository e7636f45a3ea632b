#include "kernels/cpu/dense.h"

#include <algorithm>
#include <cstring>

#include "kernels/host/host_memory.h"
#include "kernels/tensor.h"

namespace tessera {
namespace {

// A task's sums, kChunkRows x kGroupPanels * 16 floats (132 KiB), fit into the second-level cache
// together with the 280 KiB of activations that the task reads in one block of k.
constexpr int64_t kChunkRows = 264;  // a multiple of every tile_rows
constexpr int64_t kGroupPanels = 8;
// A call with fewer multiply-adds takes less time than handing it to another thread.
constexpr int64_t kSerialDirect = int64_t{1} << 16;
constexpr int64_t kSerialBlocked = int64_t{1} << 18;
constexpr int64_t kTasksPerThread = 4;  // so that one delayed thread does not delay the call

float* Floats(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

// Returns where each weight row starts, for the rows of all parts in order.
std::vector<const uint8_t*> WeightRows(const std::vector<LinearPart>& parts, int64_t row_bytes) {
  std::vector<const uint8_t*> rows;
  for (const LinearPart& part : parts) {
    const auto* p = static_cast<const uint8_t*>(part.weight);
    for (int64_t r = 0; r < part.rows; ++r) rows.push_back(p + r * row_bytes);
  }
  return rows;
}

// Packs one panel: transposes up to 16 rows. T has the element's size; no bit changes.
template <class T>
void PackPanel(const uint8_t* const* rows, int count, int64_t in, uint8_t* out) {
  constexpr int64_t kBlock = 64 / sizeof(T);  // a cache line of each row at a time
  for (int64_t k0 = 0; k0 < in; k0 += kBlock) {
    const int64_t n = std::min(kBlock, in - k0);
    for (int lane = 0; lane < count; ++lane) {
      const uint8_t* from = rows[lane] + k0 * sizeof(T);
      uint8_t* to = out + (k0 * kLanes + lane) * sizeof(T);
      for (int64_t k = 0; k < n; ++k) {
        std::memcpy(to + k * kLanes * sizeof(T), from + k * sizeof(T), sizeof(T));
      }
    }
  }
}

}  // namespace

DenseRunner::DenseRunner(const CpuKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool) {
  TESSERA_CHECK(kChunkRows % kernels.tile_rows == 0 && kGroupPanels % kernels.tile_panels == 0);
  for (int i = 0; i < pool.threads(); ++i) {
    sums_.push_back(AllocateHost(kChunkRows * kGroupPanels * kLanes * 4));
    weights_.push_back(AllocateHost(kernels.tile_panels * kDenseBlock * kLanes * 4));
  }
}

Linear DenseRunner::Pack(const std::vector<LinearPart>& parts, int64_t cols, DType dtype) {
  TESSERA_CHECK(!parts.empty() && cols > 0);
  const int64_t row_bytes = cols * DTypeBytes(dtype);
  const std::vector<const uint8_t*> rows = WeightRows(parts, row_bytes);
  Linear w{.in = cols, .out = static_cast<int64_t>(rows.size()), .dtype = dtype};
  const int64_t panels = CeilDiv<int64_t>(w.out, kLanes);
  w.weight = AllocateHost(panels * kLanes * row_bytes);
  pool_.ParallelFor(panels, [&](int64_t panel, int) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, w.out - panel * kLanes));
    const uint8_t* const* first = rows.data() + panel * kLanes;
    uint8_t* out = w.weight.get() + panel * kLanes * row_bytes;
    if (dtype == DType::kF32) {
      PackPanel<uint32_t>(first, count, cols, out);
    } else {
      PackPanel<uint16_t>(first, count, cols, out);
    }
  });
  if (parts[0].bias) {
    w.bias = AllocateHost(w.out * 4);
    float* out = Floats(w.bias);
    for (const LinearPart& part : parts) {
      TESSERA_CHECK(part.bias != nullptr);
      const HostTensor bias{part.bias, dtype, {part.rows}};
      for (int64_t i = 0; i < part.rows; ++i) *out++ = ElementAsFloat(bias, i);
    }
  } else {
    for (const LinearPart& part : parts) TESSERA_CHECK(part.bias == nullptr);
  }
  return w;
}

void DenseRunner::Run(const DenseCall& call) {
  if (call.rows == 0) return;
  if (call.rows <= kernels_.direct_rows) {
    RunDirect(call);
  } else {
    RunBlocked(call);
  }
}

void DenseRunner::RunDirect(const DenseCall& call) {
  const int64_t panels = CeilDiv<int64_t>(call.out, kLanes);
  int64_t step = panels;
  if (call.rows * call.in * call.out >= kSerialDirect) {
    step = RoundUp(CeilDiv(panels, kTasksPerThread * pool_.threads()), kGroupPanels);
  }
  pool_.ParallelFor(CeilDiv(panels, step), [&](int64_t task, int) {
    kernels_.dense_direct(call, task * step, std::min(panels, (task + 1) * step));
  });
}

void DenseRunner::RunBlocked(const DenseCall& call) {
  PackRows(call);
  const int64_t panels = CeilDiv<int64_t>(call.out, kLanes);
  const int64_t chunks = CeilDiv(call.rows, kChunkRows);
  // Chunks of equal size: 265 rows do not become 264 and 1.
  const int64_t chunk_rows = RoundUp<int64_t>(CeilDiv(call.rows, chunks), kernels_.tile_rows);
  int64_t group = kGroupPanels;
  while (group > kernels_.tile_panels &&
         CeilDiv(panels, group) * chunks < kTasksPerThread * pool_.threads()) {
    group /= 2;
  }
  const int64_t groups = CeilDiv(panels, group);
  const auto block = [&](int64_t task, int worker) {
    const int64_t begin = task % groups * group, row = task / groups * chunk_rows;
    const int64_t rows = std::min(chunk_rows, call.rows - row);
    if (rows > 0) RunBlock(call, begin, std::min(panels, begin + group), row, rows, worker);
  };
  if (call.rows * call.in * call.out < kSerialBlocked) {
    for (int64_t task = 0; task < groups * chunks; ++task) block(task, 0);
  } else {
    pool_.ParallelFor(groups * chunks, block);
  }
}

void DenseRunner::PackRows(const DenseCall& call) {
  const int64_t blocks = CeilDiv<int64_t>(call.in, kDenseBlock);
  const int64_t bytes = blocks * call.rows * kDenseStride * 4;
  if (bytes > packed_bytes_) {
    packed_rows_.reset();
    packed_rows_ = AllocateHost(bytes);
    packed_bytes_ = bytes;
  }
  constexpr int64_t kRowsPerTask = 32;
  const auto pack = [&](int64_t task, int) {
    const int64_t end = std::min(call.rows, (task + 1) * kRowsPerTask);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t k = b * kDenseBlock, n = std::min<int64_t>(kDenseBlock, call.in - k);
        std::memcpy(Floats(packed_rows_) + (b * call.rows + r) * kDenseStride,
                    call.x + r * call.in + k, n * 4);
      }
    }
  };
  const int64_t tasks = CeilDiv(call.rows, kRowsPerTask);
  if (call.rows * call.in < kSerialDirect) {
    for (int64_t task = 0; task < tasks; ++task) pack(task, 0);
  } else {
    pool_.ParallelFor(tasks, pack);
  }
}

void DenseRunner::RunBlock(const DenseCall& call, int64_t begin, int64_t end, int64_t row,
                           int64_t rows, int worker) {
  float* sums = Floats(sums_[worker]);
  const int64_t sums_stride = (end - begin) * kLanes;
  // Tiles of nearly equal height: 16 rows become 8 + 8, not 12 + 4.
  const int64_t tiles = CeilDiv<int64_t>(rows, kernels_.tile_rows);
  for (int64_t k = 0; k < call.in; k += kDenseBlock) {
    const int64_t steps = std::min<int64_t>(kDenseBlock, call.in - k);
    const float* a = Floats(packed_rows_) + (k / kDenseBlock * call.rows + row) * kDenseStride;
    for (int64_t p = begin; p < end; p += kernels_.tile_panels) {
      const int64_t panels = std::min<int64_t>(kernels_.tile_panels, end - p);
      const float* b = reinterpret_cast<const float*>(call.panels) + (p * call.in + k) * kLanes;
      int64_t b_stride = call.in * kLanes;
      if (call.dtype != DType::kF32) {
        float* widened = Floats(weights_[worker]);
        b_stride = kDenseBlock * kLanes;
        for (int64_t i = 0; i < panels; ++i) {
          kernels_.dense_widen(call, p + i, k, k + steps, widened + i * b_stride);
        }
        b = widened;
      }
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t first = t * rows / tiles, last = (t + 1) * rows / tiles;
        kernels_.dense_tile(a + first * kDenseStride, last - first, b, b_stride, panels, steps,
                            sums + first * sums_stride + (p - begin) * kLanes, sums_stride, k > 0);
      }
    }
  }
  kernels_.dense_finish(call, sums, sums_stride, row, rows, begin, end);
}

}  // namespace tessera
