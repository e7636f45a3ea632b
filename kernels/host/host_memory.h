// Allocates host memory for the CPU backends.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// Returns memory that is aligned to 64 bytes, zeroed and committed. A buffer that the machine
// cannot hold therefore fails here, at start, and not in the middle of a request. Large buffers ask
// for huge pages: a decode step streams all weights once and would otherwise spend its time on TLB
// misses. Ends the process (base/end_process.h) when memory is exhausted. Threads: safe.
Buffer AllocateHost(int64_t bytes);

}  // namespace tessera
