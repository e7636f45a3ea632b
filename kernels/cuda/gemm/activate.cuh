// The activation functions of ops.h, on the device.
#pragma once

#include "kernels/ops.h"

namespace tessera::cuda {

__device__ inline float Activate(float x, Activation act) {
  switch (act) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:  // unlike 1 + erf, erfc keeps the left tail's relative accuracy
      return 0.5f * x * erfcf(-x * 0.70710678118654752f);
    case Activation::kQuickGelu:
      return x / (1 + expf(-1.702f * x));
    case Activation::kSilu:
      return x / (1 + expf(-x));
  }
  return x;
}

}  // namespace tessera::cuda
