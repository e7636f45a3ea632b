// Opens model weights: safetensors files, single or sharded, or random values for given shapes.
//
// The files are untrusted. These rules hold before any tensor is read:
// - The header has at most 100 MB and lies inside the file.
// - The number of elements of a shape does not overflow and fits the tensor's byte range.
// - The byte ranges cover the data without overlaps and holes.
// - Names are unique over all shards, after they were mapped to canonical names.
// - model.safetensors.index.json names plain files inside the directory, and each file holds the
//   tensors that the index says.
// A tensor of a dtype that the engine does not read is an error only when Find asks for it.
// Symbolic links are followed: download caches consist of them, and the operator owns the
// directory. Files are mapped and must not be truncated while the source lives.
//
// Lifetime: views from Find live as long as the source. Threads: one.
// Errors, with file and tensor: INVALID_ARGUMENT, NOT_FOUND, DATA_LOSS, UNIMPLEMENTED (dtype).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/tensor.h"

namespace tessera {

// Opens <dir>/model.safetensors.index.json, or <dir>/model.safetensors if there is no index. Find
// takes canonical names for both layouts of llava-hf checkpoints: the older one has
// `language_model.model.*` and `language_model.lm_head.weight`; the newer one has
// `model.language_model.*`, `model.vision_tower.*`, `model.multi_modal_projector.*` and
// `lm_head.weight`.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& dir);

// Returns the canonical name of a checkpoint's tensor. Names of no known layout stay as they are.
std::string CanonicalTensorName(absl::string_view name);

// Makes random weights of any name and shape. Values follow N(0, 0.02^2); weights with "norm" in
// their name are ones, and biases are zeros. Name and seed determine the values. A tensor is made
// when Find asks for it, and its view lives until Find has returned 8 other tensors after it.
std::unique_ptr<TensorSource> MakeDummyWeights(DType dtype, uint64_t seed);

}  // namespace tessera
