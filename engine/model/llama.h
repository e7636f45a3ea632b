// The Llama decoder over the paged cache, in terms of kernels/ops.h; it reads like the paper.
//
// Source: Touvron et al. 2023 (RMSNorm before, rotary positions, SwiGLU); GQA and QKV biases as in
// Mistral and Qwen2. Ownership: weights and activations live in the backend's memory and belong to
// this object. One thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/statistics/statistic.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace tessera {

// One step's arrays in device memory; shapes as in engine/model/batch.h.
struct DeviceBatch {
  int64_t rows = 0;
  int64_t sequences = 0;
  int64_t logit_rows = 0;
  const int32_t* ids = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* query_begin = nullptr;
  const int32_t* logit_row = nullptr;
  std::vector<StepStatistic*> statistics;
  const uint8_t* transform_rows = nullptr;       // null: none
  const uint8_t* transform_sequences = nullptr;  // null: none
  // [layers], or as many as were prepared.
  std::vector<const KvSlot*> slots;
  std::vector<KvLayerView> kv;
  std::function<void(int64_t end)> prepare;  // makes those of layers before `end`; null: all there
};

class LlamaDecoder {
 public:
  // `max_rows` rows of activations are allocated; `max_positions` of the rotary table.
  static absl::StatusOr<std::unique_ptr<LlamaDecoder>> Load(const LlamaConfig& config,
                                                            TensorSource& source, Ops& ops,
                                                            int max_rows);

  // Token embeddings of the batch into the hidden state, which the caller may then splice.
  float* Embed(const DeviceBatch& batch);  // [rows, hidden]
  // All layers over the hidden state, storing K and V; returns device logits [logit_rows, vocab],
  // the caller's to change.
  float* Forward(const DeviceBatch& batch);

 private:
  struct Layer {
    Buffer attention_norm, mlp_norm;  // float32 [hidden]
    Linear qkv, o, gate_up, down;
  };
  LlamaDecoder(const LlamaConfig& config, Ops& ops) : config_(config), ops_(ops) {}
  absl::Status LoadLayer(int index, TensorSource& source);
  void AllocateActivations(int max_rows);
  void RunLayer(int64_t index, const DeviceBatch& batch);
  void BuildRopeTable();

  LlamaConfig config_;
  Ops& ops_;
  int max_rows_ = 0;
  Buffer embedding_;
  DType embedding_dtype_ = DType::kF32;
  std::vector<Layer> layers_;
  Buffer final_norm_;
  Linear lm_head_;
  Buffer cos_, sin_;                                  // [max_positions, head_dim / 2]
  Buffer hidden_, last_, qkv_, attention_, gate_up_;  // [max_rows, ...]
  Buffer logits_;                                     // [logit_rows, vocab]
  int64_t logit_floats_ = 0;                          // of logits_
};

}  // namespace tessera
