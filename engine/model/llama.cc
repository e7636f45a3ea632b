#include "engine/model/llama.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/graph_parts.h"
#include "kernels/load_weights.h"

namespace tessera {
namespace {

float* F(const Buffer& b) { return reinterpret_cast<float*>(b.get()); }

}  // namespace

absl::StatusOr<std::unique_ptr<LlamaDecoder>> LlamaDecoder::Load(const LlamaConfig& config,
                                                                 TensorSource& source, Ops& ops,
                                                                 int max_rows) {
  std::unique_ptr<LlamaDecoder> model(new LlamaDecoder(config, ops));
  const std::string base = "language_model.";
  ASSIGN_OR_RETURN(const HostTensor embedding,
                   source.Find(base + "embed_tokens.weight", {config.vocab, config.hidden}));
  model->embedding_ = ops.Allocate(embedding.bytes());
  ops.CopyToDevice(model->embedding_.get(), embedding.data, embedding.bytes());
  model->embedding_dtype_ = embedding.dtype;
  if (config.tied_embeddings) {
    model->lm_head_ =
        ops.MakeLinear({{embedding.data, nullptr, config.vocab}}, config.hidden, embedding.dtype);
  }
  model->layers_.resize(config.layers);
  for (int i = 0; i < config.layers; ++i) RETURN_IF_ERROR(model->LoadLayer(i, source));
  ASSIGN_OR_RETURN(model->final_norm_,
                   LoadFloats(source, ops, base + "norm.weight", {config.hidden}));
  if (!config.tied_embeddings) {
    ASSIGN_OR_RETURN(model->lm_head_, LoadLinear(source, ops, {{"lm_head", config.vocab}},
                                                 {config.hidden}, BiasRule::kNone));
  }
  model->AllocateActivations(max_rows);
  model->BuildRopeTable();
  return model;
}

absl::Status LlamaDecoder::LoadLayer(int index, TensorSource& source) {
  const LlamaConfig& c = config_;
  Layer& layer = layers_[index];
  const std::string base = absl::StrCat("language_model.layers.", index, ".");
  const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  ASSIGN_OR_RETURN(layer.attention_norm,
                   LoadFloats(source, ops_, base + "input_layernorm.weight", {c.hidden}));
  ASSIGN_OR_RETURN(layer.mlp_norm,
                   LoadFloats(source, ops_, base + "post_attention_layernorm.weight", {c.hidden}));
  const std::string attention = base + "self_attn.", mlp = base + "mlp.";
  const auto rule = [](bool bias) { return bias ? BiasRule::kRequired : BiasRule::kNone; };
  ASSIGN_OR_RETURN(layer.qkv, LoadLinear(source, ops_,
                                         {{attention + "q_proj", q},
                                          {attention + "k_proj", kv},
                                          {attention + "v_proj", kv}},
                                         {c.hidden}, rule(c.qkv_bias)));
  ASSIGN_OR_RETURN(
      layer.o, LoadLinear(source, ops_, {{attention + "o_proj", c.hidden}}, {q}, rule(c.o_bias)));
  ASSIGN_OR_RETURN(layer.gate_up, LoadLinear(source, ops_,
                                             {{mlp + "gate_proj", c.intermediate},
                                              {mlp + "up_proj", c.intermediate}},
                                             {c.hidden}, BiasRule::kNone));
  ASSIGN_OR_RETURN(layer.down, LoadLinear(source, ops_, {{mlp + "down_proj", c.hidden}},
                                          {c.intermediate}, BiasRule::kNone));
  return absl::OkStatus();
}

void LlamaDecoder::AllocateActivations(int max_rows) {
  const LlamaConfig& c = config_;
  const int64_t row_floats = int64_t{max_rows} * 4;
  max_rows_ = max_rows;
  hidden_ = ops_.Allocate(row_floats * c.hidden);
  last_ = ops_.Allocate(row_floats * c.hidden);
  qkv_ = ops_.Allocate(row_floats * (c.heads + 2 * c.kv_heads) * c.head_dim);
  attention_ = ops_.Allocate(row_floats * c.heads * c.head_dim);
  gate_up_ = ops_.Allocate(row_floats * 2 * c.intermediate);
}

void LlamaDecoder::BuildRopeTable() {
  // As transformers: inverse frequencies and angles in float32.
  const int half = config_.head_dim / 2, positions = config_.max_positions;
  std::vector<float> cos(int64_t{positions} * half), sin(cos.size());
  for (int i = 0; i < half; ++i) {
    const float inverse =
        static_cast<float>(1.0 / std::pow(double{config_.rope_theta}, 2.0 * i / config_.head_dim));
    for (int p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * inverse;
      cos[int64_t{p} * half + i] = std::cos(angle);
      sin[int64_t{p} * half + i] = std::sin(angle);
    }
  }
  const int64_t bytes = static_cast<int64_t>(cos.size()) * 4;
  cos_ = ops_.Allocate(bytes);
  sin_ = ops_.Allocate(bytes);
  ops_.CopyToDevice(cos_.get(), cos.data(), bytes);
  ops_.CopyToDevice(sin_.get(), sin.data(), bytes);
}

float* LlamaDecoder::Embed(const DeviceBatch& batch) {
  TESSERA_CHECK(batch.rows <= max_rows_);
  ops_.Embed(embedding_.get(), embedding_dtype_, batch.ids, batch.rows, config_.hidden, F(hidden_));
  return F(hidden_);
}

void LlamaDecoder::RunLayer(int64_t index, const DeviceBatch& batch) {
  const LlamaConfig& c = config_;
  const Layer& layer = layers_[index];
  const KvLayerView& kv = batch.kv[index];
  float* x = F(hidden_);
  for (StepStatistic* statistic : batch.statistics) {
    statistic->OnLayerInput(ops_, static_cast<int>(index), x);
  }
  ops_.MatMul(layer.qkv, x, batch.rows, F(qkv_), Activation::kNone, nullptr,
              {Prologue::kRmsNorm, F(layer.attention_norm), nullptr, c.rms_eps});
  ops_.RopeAndStore(F(qkv_), batch.positions, batch.slots[index], batch.transform_rows, batch.rows,
                    c.heads, {F(cos_), F(sin_)}, kv);
  for (StepStatistic* statistic : batch.statistics) {
    statistic->OnAttention(ops_, static_cast<int>(index), F(qkv_), batch.query_begin, kv);
  }
  ops_.PagedAttention(F(qkv_), batch.query_begin, batch.transform_sequences, batch.sequences,
                      c.heads, kv, F(attention_));
  ops_.MatMul(layer.o, F(attention_), batch.rows, x, Activation::kNone, x);

  ops_.MatMul(layer.gate_up, x, batch.rows, F(gate_up_), Activation::kNone, nullptr,
              {Prologue::kRmsNorm, F(layer.mlp_norm), nullptr, c.rms_eps});
  ops_.MatMul(layer.down, F(gate_up_), batch.rows, x, Activation::kNone, x,
              {Prologue::kSwiGlu, nullptr, nullptr, 0});
}

float* LlamaDecoder::Forward(const DeviceBatch& batch) {
  const LlamaConfig& c = config_;
  const auto prepare = [&batch](int64_t end) {
    if (batch.prepare) batch.prepare(end);
  };
  RunInGraphs(ops_, c.layers, prepare, [&](int64_t layer) { RunLayer(layer, batch); });
  if (batch.logit_rows == 0) return nullptr;
  if (const int64_t floats = batch.logit_rows * c.vocab; floats > logit_floats_) {
    logit_floats_ = floats;
    logits_ = ops_.Allocate(floats * 4);
  }
  ops_.GatherRows(F(hidden_), batch.logit_row, batch.logit_rows, c.hidden, F(last_));
  ops_.MatMul(lm_head_, F(last_), batch.logit_rows, F(logits_), Activation::kNone, nullptr,
              {Prologue::kRmsNorm, F(final_norm_), nullptr, c.rms_eps});
  return F(logits_);
}

}  // namespace tessera
