// Model weights from files: safetensors by mmap, single or sharded, or random from shapes alone.
//
// Files are foreign: the header is at most 100 MB and inside the file, shape products are checked
// for overflow and must equal the byte range, ranges must lie inside the data without overlap or
// holes, names are unique, shards named by model.safetensors.index.json must be plain file names
// inside the directory and hold what the index says.
// Lifetime: views from Find live as long as the source. Threads: one thread.
// Errors: INVALID_ARGUMENT / NOT_FOUND / DATA_LOSS with file and tensor name.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace tessera {

// Opens <dir>/model.safetensors.index.json or <dir>/model.safetensors. Names of the older llava-hf
// layout (`language_model.model.*`, `language_model.lm_head.weight`) and the newer one
// (`model.language_model.*`, `model.vision_tower.*`, `model.multi_modal_projector.*`,
// `lm_head.weight`) are both found under the canonical names of TensorSource.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& dir);

// Random weights of any name and shape, N(0, 0.02), norms one, biases zero; reproducible by name
// and seed. Memory is produced on demand and freed by the next Find but 8.
std::unique_ptr<TensorSource> MakeDummyWeights(DType dtype, uint64_t seed);

}  // namespace tessera
