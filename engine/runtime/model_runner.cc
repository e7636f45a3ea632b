// Engine::Loop's part that makes a step's arrays: image features, tokens, pages.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "engine/runtime/engine_core.h"

namespace tessera {

Digest Engine::Loop::FeatureKey(const Request& request, const PreparedImage& image) const {
  if (request.salt.empty()) return image.digest;
  return Hasher().AddString(request.salt).Add(image.digest.data(), image.digest.size()).Finish();
}

void Engine::Loop::EncodeImages(Flight* flight) {
  struct Want {
    Generation* generation;
    int image;
    Digest key;
  };
  const int per_image = model_->config().tokens_per_image();
  std::vector<Want> wants;
  std::vector<const PreparedImage*> images;
  std::unordered_map<Digest, int, DigestHash> slot_of;  // key -> index into images
  for (const StepPlan::Item& item : flight->plan.items) {
    Generation& g = Of(item.sequence);
    const auto& spans = g.request().prompt.images;
    for (int i = 0; i < static_cast<int>(spans.size()); ++i) {
      if (spans[i].begin >= item.first + item.count || spans[i].begin + per_image <= item.first)
        continue;
      if (g.features[i] != nullptr) continue;
      const Digest key = FeatureKey(g.request(), *spans[i].image);
      if (!g.request().bypass_prefix) {
        g.features[i] = features_.Find(key);
        const bool shared = slot_of.contains(key);
        observer_->OnImageLookup(g.features[i] != nullptr || shared);
        if (g.features[i] != nullptr) continue;
      }
      if (slot_of.emplace(key, static_cast<int>(images.size())).second)
        images.push_back(spans[i].image.get());
      wants.push_back({&g, i, key});
    }
  }
  if (images.empty()) return;
  Deliver();  // this may take long
  const auto encoded = model_->EncodeImages(images);
  flight->pictures = static_cast<int>(images.size());
  for (const Want& want : wants) {
    const auto& features = encoded[slot_of.at(want.key)];
    want.generation->features[want.image] = features;
    flight->pictured.push_back(want.generation);
    if (!want.generation->request().bypass_prefix) features_.Insert(want.key, features);
  }
}

Batch Engine::Loop::MakeBatch(const StepPlan& plan) {
  const int per_image = model_->config().tokens_per_image();
  Batch batch;
  bool any_rotated = false;
  batch.query_begin.push_back(0);
  for (const StepPlan::Item& item : plan.items) {
    const Sequence& s = *item.sequence;
    const int row = batch.rows(), last = item.first + item.count;
    for (int i = item.first; i < last; ++i) {
      batch.ids.push_back(i < std::ssize(s.tokens) ? s.tokens[i] : -1 - s.awaited);
      batch.positions.push_back(i);
    }
    batch.query_begin.push_back(batch.rows());
    Generation& g = Of(&s);
    if (item.sample) {
      const int place = static_cast<int>(batch.sampled_rows.size());
      batch.sampled_rows.push_back(batch.rows() - 1);
      batch.sample_rules.push_back(g.Rule());
      g.AddEdit(place, &batch.edits);
      if (const int top = g.request().top_logprobs; top >= 0) {
        batch.logprobs.push_back({place, top});
        batch.logprob_places = std::max(batch.logprob_places, 1 + top);
      }
    }

    const uint8_t rotated = s.policy->rotated() ? 1 : 0;
    any_rotated |= rotated != 0;
    batch.transform_rows.insert(batch.transform_rows.end(), item.count, rotated);
    batch.transform_sequences.push_back(rotated);

    AskForStatistics(item, &batch);
    const auto& spans = g.request().prompt.images;
    for (size_t i = 0; i < spans.size(); ++i) {
      const int begin = std::max(item.first, spans[i].begin);
      const int end = std::min(last, spans[i].begin + per_image);
      if (begin >= end) continue;
      batch.splices.push_back(
          {row + begin - item.first, begin - spans[i].begin, end - begin, g.features[i]});
      if (end == spans[i].begin + per_image) g.features[i] = nullptr;  // the splice holds it now
    }
  }
  FillColumns(plan, &batch);
  const auto greedy = [](const SampleRule& rule) { return rule.temperature == 0; };
  if (std::all_of(batch.sample_rules.begin(), batch.sample_rules.end(), greedy)) {
    batch.sample_rules.clear();
  }
  if (!any_rotated) {
    batch.transform_rows.clear();
    batch.transform_sequences.clear();
  }
  batch.fill_layer = [this, &plan](int layer, Batch::Layer* out) {
    if (layer == 1) Deliver();  // the device has the first layer to work on
    FillLayer(plan, layer, out);
  };
  return batch;
}

void Engine::Loop::FillLayer(const StepPlan& plan, int layer, Batch::Layer* out) {
  out->slots.clear();
  out->pages.clear();
  out->runs.clear();
  out->run_begin.assign(1, 0);
  for (const StepPlan::Item& item : plan.items) {
    const SequenceCache& cache = item.sequence->cache;
    for (int i = item.first; i < item.first + item.count; ++i) {
      out->slots.push_back(cache.SlotOf(layer, i));
    }
    for (const Run& run : cache.runs(layer)) {
      out->runs.push_back(
          {run.format, static_cast<int32_t>(out->pages.size()), run.tokens, run.header, run.map});
      out->pages.insert(out->pages.end(), run.pages.begin(), run.pages.end());
    }
    out->run_begin.push_back(static_cast<int32_t>(out->runs.size()));
  }
}

}  // namespace tessera
