// The input of one step as flat arrays: all that the model knows of the scheduled sequences.
//
// Rows are new tokens, sequence after sequence; prefill chunks and decodes mix freely.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/sampling/sampler.h"
#include "engine/statistics/statistic.h"
#include "kernels/layout/page_layout.h"
#include "vision/tower/feature_cache.h"

namespace tessera {

struct Batch {
  // Rows whose embeddings are image features (multimodal embedding merge).
  struct ImageRows {
    int32_t first_row = 0;      // in the batch
    int32_t first_feature = 0;  // row inside `features`
    int32_t rows = 0;
    std::shared_ptr<const ImageFeatures> features;
  };
  // One layer's block tables and the slots of its new tokens.
  struct Layer {
    std::vector<KvSlot> slots;       // [rows]
    std::vector<PageId> pages;       // run after run
    std::vector<KvRun> runs;         // sequence after sequence
    std::vector<int32_t> run_begin;  // [sequences + 1]
  };

  // [rows]; image rows hold the image token. A negative id is a placeholder: the token at index
  // -1 - id among those that the step before samples, which the host does not know yet.
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;    // [rows]
  std::vector<int32_t> query_begin;  // [sequences + 1] into rows
  // 1: q, k and v are Walsh-Hadamard transformed (the sequence's policy asks for it).
  std::vector<uint8_t> transform_rows;       // [rows], or empty: none
  std::vector<uint8_t> transform_sequences;  // [sequences], or empty: none
  std::vector<int32_t> sampled_rows;         // rows of which a token is sampled, ascending
  std::vector<SampleRule> sample_rules;      // [sampled_rows], or empty: the most likely of each
  LogitEdits edits;                          // of sampled rows' logits; edit.row counts those
  // Log-probabilities of sampled rows, without edits; `sampled` ascends. Ops::Logprobs has the
  // places.
  std::vector<LogprobJob> logprobs;
  int logprob_places = 0;
  std::vector<int32_t> logit_rows;  // others whose logits are wanted, ascending
  // The statistics that measure something in this step; not owned.
  std::vector<StepStatistic*> statistics;
  std::vector<ImageRows> image_rows;
  // Builds one layer's arrays and does nothing else. Called in the order of layers, while the
  // device works on earlier ones: building all of them first would leave it idle.
  std::function<void(int layer, Layer* out)> build_layer;

  int rows() const { return static_cast<int>(ids.size()); }
  int sequences() const { return static_cast<int>(query_begin.size()) - 1; }
};

}  // namespace tessera
