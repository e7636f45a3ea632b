#include "engine/sampling/sampler.h"

#include <cmath>
#include <map>

namespace tessera {
namespace {

uint64_t Mix(uint64_t x) {  // splitmix64's finalizer (Steele, Lea, Flood 2014)
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::vector<LogitBias> ToList(const std::map<int32_t, float>& biases) {
  std::vector<LogitBias> out;
  for (const auto& [id, bias] : biases) out.push_back({id, bias});
  return out;
}

}  // namespace

double UniformSample(uint64_t seed, uint64_t index) {
  // Mixing the seed first keeps the streams of related seeds from being shifted copies.
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  const uint64_t bits = Mix(Mix(seed + kStep) + (index + 1) * kStep);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>& stop_ids)
    : params_(params), seed_(seed) {
  edit_.repetition = params.repetition_penalty;
  edit_.presence = params.presence_penalty;
  edit_.frequency = params.frequency_penalty;
  std::map<int32_t, float> biases;  // an edit may name an id only once
  for (const auto& [id, bias] : params.logit_bias) biases[id] += bias;
  biases_ = ToList(biases);
  for (const int32_t id : stop_ids) biases[id] = -HUGE_VALF;
  biases_and_stops_ = ToList(biases);
}

void Sampler::AddPromptToken(int32_t id) {
  if (!edit_.penalises()) return;
  if (index_of_.try_emplace(id, static_cast<int>(counts_.size())).second)
    counts_.push_back({id, 0});
}

void Sampler::AddOutputToken(int32_t id) {
  if (!edit_.penalises()) return;
  AddPromptToken(id);
  ++counts_[index_of_[id]].times;
}

void Sampler::AddEdit(int row, bool ban_stop_ids, int pending_sample, LogitEdits* out) const {
  const std::vector<LogitBias>& biases = ban_stop_ids ? biases_and_stops_ : biases_;
  if (biases.empty() && !edit_.penalises()) return;
  LogitEdit edit = edit_;
  edit.row = row;
  edit.first_bias = static_cast<int32_t>(out->biases.size());
  edit.biases = static_cast<int32_t>(biases.size());
  edit.first_count = static_cast<int32_t>(out->counts.size());
  edit.counts = static_cast<int32_t>(counts_.size());
  if (edit_.penalises()) edit.awaited = pending_sample;
  out->rows.push_back(edit);
  out->biases.insert(out->biases.end(), biases.begin(), biases.end());
  out->counts.insert(out->counts.end(), counts_.begin(), counts_.end());
}

SampleRule Sampler::RuleAt(int index) const {
  return {params_.temperature, params_.top_k, params_.top_p, params_.min_p,
          UniformSample(seed_, static_cast<uint64_t>(index))};
}

}  // namespace tessera
