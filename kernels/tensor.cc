#include "kernels/tensor.h"

#include <bit>
#include <cstring>

#include "base/half.h"

namespace tessera {

float ElementAsFloat(const HostTensor& tensor, int64_t i) {
  const auto* p = static_cast<const uint8_t*>(tensor.data) + i * DTypeBytes(tensor.dtype);
  if (tensor.dtype == DType::kF32) {
    float f;
    std::memcpy(&f, p, 4);
    return f;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return tensor.dtype == DType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

std::vector<float> ToFloats(const HostTensor& tensor) {
  std::vector<float> out(tensor.elements());
  for (int64_t i = 0; i < tensor.elements(); ++i) out[i] = ElementAsFloat(tensor, i);
  return out;
}

}  // namespace tessera
