// Host memory of the CPU backends.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// 64-byte aligned, zeroed and committed: a buffer that the machine cannot hold fails here, at
// start, and not in the middle of a request. Large buffers ask for huge pages, because a decode
// step streams all weights once and would otherwise spend its time on TLB misses. Ends the
// process (end_process.h) when memory is exhausted. Threads: safe.
Buffer AllocateHost(int64_t bytes);

}  // namespace tessera
