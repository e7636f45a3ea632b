#include "kernels/cuda/device.h"

namespace tessera {

CudaDevices FindCudaDevices() { return {{}, "this binary was built without CUDA"}; }

}  // namespace tessera
