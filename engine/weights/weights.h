// Model weights from files: safetensors by mmap, single or sharded, or random from shapes alone.
//
// Files are foreign: the header is at most 100 MB and inside the file, shape products are checked
// for overflow and must equal the byte range, ranges must cover the data without overlap or holes,
// names are unique (also between shards, also after mapping), shards named by
// model.safetensors.index.json must be plain file names inside the directory and hold what the
// index says. Tensors of a dtype this engine does not read are accepted until they are asked for.
// Symbolic links are followed: download caches are made of them, and the directory is the
// operator's. A file must not be truncated while it is mapped. Lifetime: views from Find live as
// long as the source. Threads: one thread. Errors: INVALID_ARGUMENT / NOT_FOUND / DATA_LOSS /
// UNIMPLEMENTED (dtype) with file and tensor.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/tensor.h"

namespace tessera {

// Opens <dir>/model.safetensors.index.json or <dir>/model.safetensors. Names of the older llava-hf
// layout (`language_model.model.*`, `language_model.lm_head.weight`) and the newer one
// (`model.language_model.*`, `model.vision_tower.*`, `model.multi_modal_projector.*`,
// `lm_head.weight`) are both found under the canonical names of TensorSource.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& dir);

// The canonical name of a checkpoint's tensor name, by the table of layouts; others stay.
std::string CanonicalTensorName(absl::string_view name);

// Random weights of any name and shape: N(0, 0.02); ones for weights with "norm" in their name,
// zeros for biases. Reproducible by name and seed. Memory is produced on demand: a view lives until
// 8 other tensors have been found after it, and asking again before that costs nothing.
std::unique_ptr<TensorSource> MakeDummyWeights(DType dtype, uint64_t seed);

}  // namespace tessera
