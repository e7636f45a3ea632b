// The flat arrays of one step: what the model needs to know of its sequences, and no more.
//
// Rows are new tokens, sequence after sequence: prefill chunks and decodes mix freely.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/sampling/sampler.h"
#include "kernels/layout/page_layout.h"
#include "kernels/statistics_ops.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

struct Batch {
  // A stretch of rows whose embeddings are image features.
  struct Splice {
    int32_t first_row = 0;      // in the batch
    int32_t first_feature = 0;  // row inside `features`
    int32_t rows = 0;
    std::shared_ptr<const ImageFeatures> features;
  };
  struct Layer {
    std::vector<KvSlot> slots;       // [rows]
    std::vector<PageId> pages;       // run after run
    std::vector<KvRun> runs;         // sequence after sequence
    std::vector<int32_t> run_begin;  // [sequences + 1]
  };

  // [rows]; image rows hold the image token. Below 0: token -1 - id of those that the step before
  // draws, which the host need not know yet.
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;    // [rows]
  std::vector<int32_t> query_begin;  // [sequences + 1] into rows
  // 1: q, k and v are Walsh-Hadamard transformed (the sequence's policy asks for it).
  std::vector<uint8_t> transform_rows;       // [rows], or empty: none
  std::vector<uint8_t> transform_sequences;  // [sequences], or empty: none
  std::vector<int32_t> sampled_rows;         // rows of which a token is sampled, ascending
  std::vector<SampleRule> sample_rules;      // [sampled_rows], or empty: the most likely of each
  LogitEdits edits;                          // of sampled rows' logits; edit.row counts those
  // Of sampled rows' logits without edits; `sampled` ascends. Places: as for Ops::Logprobs.
  std::vector<LogprobJob> logprobs;
  int logprob_places = 0;
  std::vector<int32_t> logit_rows;  // others whose logits are wanted, ascending
  // Rows whose largest |h| at every layer's input are wanted, `peaks` of them each.
  std::vector<int32_t> peak_rows;
  int peaks = 0;
  bool medians = false;  // and the median
  // Rows whose attention weights are wanted; to what they are added, and how much that is a layer.
  std::vector<ColumnJob> column_jobs;
  std::vector<float> columns;  // [layers, column_tokens]
  int64_t column_tokens = 0;
  std::vector<Splice> splices;
  // Makes one layer's arrays. Called in the order of layers while the device works on earlier ones.
  std::function<void(int layer, Layer* out)> fill_layer;

  int rows() const { return static_cast<int>(ids.size()); }
  int sequences() const { return static_cast<int>(query_begin.size()) - 1; }
};

}  // namespace tessera
