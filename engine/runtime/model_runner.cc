#include "engine/runtime/model_runner.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "engine/runtime/warm_up.h"
#include "engine/statistics/prompt_statistics.h"
#include "engine/statistics/statistic_table.h"

namespace tessera {
namespace {

// An image's key in the encoder cache. Tenants with a salt do not share features.
Digest FeatureKey(const Request& request, const PreparedImage& image) {
  if (request.salt.empty()) return image.digest;
  return Hasher().AddString(request.salt).Add(image.digest.data(), image.digest.size()).Finish();
}

// Builds one layer's block tables and the slots of its new tokens.
void BuildLayer(const SchedulerOutput& scheduled, int layer, Batch::Layer* out) {
  out->slots.clear();
  out->pages.clear();
  out->runs.clear();
  out->run_begin.assign(1, 0);
  for (const SchedulerOutput::Item& item : scheduled.items) {
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

StatisticShape ShapeOf(const ModelConfig& config) {
  return {config.text.layers, config.text.hidden, config.text.heads};
}

}  // namespace

struct ModelRunner::WantedImage {
  RequestState* request;
  int image;  // of the request's prompt
  Digest key;
};

ModelRunner::ModelRunner(std::unique_ptr<LlavaModel> model, int64_t kv_bytes,
                         int64_t image_cache_bytes, Observer* observer,
                         const LiveRequests* requests)
    : model_(std::move(model)),
      observer_(observer),
      requests_(requests),
      shape_(ShapeOf(model_->config())),
      arena_memory_(model_->ops().Allocate(kv_bytes)),
      arena_bytes_(kv_bytes),
      features_(image_cache_bytes) {
  for (auto& set : statistics_) {
    for (const StatisticEntry& entry : StatisticTable()) {
      if (entry.make_step != nullptr) set.push_back(entry.make_step(shape_));
    }
  }
}

void ModelRunner::WarmUp(const EngineOptions& options, int context_tokens) {
  tessera::WarmUp(
      *model_,
      {options.max_batch_tokens, options.max_sequences, context_tokens, options.warm_up_low_pass},
      arena_memory_.get(), arena_bytes_);
}

std::vector<ModelRunner::WantedImage> ModelRunner::WantedImages(const SchedulerOutput& scheduled) {
  const int per_image = model_->config().tokens_per_image();
  std::vector<WantedImage> wanted;
  for (const SchedulerOutput::Item& item : scheduled.items) {
    RequestState& request = requests_->Of(item.sequence);
    const auto& spans = request.request().prompt.images;
    for (int i = 0; i < static_cast<int>(spans.size()); ++i) {
      const int begin = spans[i].begin, end = begin + per_image;
      if (begin >= item.first + item.count || end <= item.first) continue;
      if (request.features[i] != nullptr) continue;
      wanted.push_back({&request, i, FeatureKey(request.request(), *spans[i].image)});
    }
  }
  return wanted;
}

void ModelRunner::EncodeImages(InFlightStep* step) {
  std::vector<WantedImage> missing;
  std::vector<const PreparedImage*> images;
  std::unordered_map<Digest, int, DigestHash> index_of;  // key -> index into `images`
  for (const WantedImage& want : WantedImages(step->scheduled)) {
    const Request& request = want.request->request();
    if (!request.bypass_prefix) {
      auto& features = want.request->features[want.image];
      features = features_.Find(want.key);
      observer_->OnImageLookup(features != nullptr || index_of.contains(want.key));
      if (features != nullptr) continue;
    }
    if (index_of.emplace(want.key, static_cast<int>(images.size())).second) {
      images.push_back(request.prompt.images[want.image].image.get());
    }
    missing.push_back(want);
  }
  if (images.empty()) return;
  const auto encoded = model_->EncodeImages(images);
  step->encoded_images = static_cast<int>(images.size());
  for (const WantedImage& want : missing) {
    const auto& features = encoded[index_of.at(want.key)];
    want.request->features[want.image] = features;
    step->encoded_for.push_back(want.request);
    if (!want.request->request().bypass_prefix) features_.Insert(want.key, features);
  }
}

void ModelRunner::BuildBatch(InFlightStep* step) {
  Batch& batch = step->batch;
  auto& statistics = statistics_[built_++ % 2];
  for (const auto& statistic : statistics) statistic->Clear();
  batch.query_begin.push_back(0);
  for (const SchedulerOutput::Item& item : step->scheduled.items) AddItem(item, step);
  for (const auto& statistic : statistics) {
    if (!statistic->empty()) batch.statistics.push_back(statistic.get());
  }
  const auto greedy = [](const SampleRule& rule) { return rule.temperature == 0; };
  if (std::all_of(batch.sample_rules.begin(), batch.sample_rules.end(), greedy)) {
    batch.sample_rules.clear();
  }
  const auto zero = [](uint8_t rotated) { return rotated == 0; };
  if (std::all_of(batch.transform_sequences.begin(), batch.transform_sequences.end(), zero)) {
    batch.transform_rows.clear();
    batch.transform_sequences.clear();
  }
  batch.build_layer = [&scheduled = step->scheduled](int layer, Batch::Layer* out) {
    BuildLayer(scheduled, layer, out);
  };
}

void ModelRunner::AddItem(const SchedulerOutput::Item& item, InFlightStep* step) {
  Batch& batch = step->batch;
  const Sequence& s = *item.sequence;
  const int first_row = batch.rows();
  for (int i = item.first; i < item.first + item.count; ++i) {
    batch.ids.push_back(i < std::ssize(s.tokens) ? s.tokens[i] : -1 - s.pending_sample);
    batch.positions.push_back(i);
  }
  batch.query_begin.push_back(batch.rows());
  const uint8_t rotated = s.policy->rotated() ? 1 : 0;
  batch.transform_rows.insert(batch.transform_rows.end(), item.count, rotated);
  batch.transform_sequences.push_back(rotated);
  RequestState& request = requests_->Of(&s);
  if (item.sample) AddSample(request, &batch);
  AddImageRows(request, item, first_row, &batch);
  step->next_step_needs_statistics.push_back(AddStatistics(item, first_row, &batch));
}

void ModelRunner::AddSample(RequestState& request, Batch* batch) {
  const int place = static_cast<int>(batch->sampled_rows.size());
  batch->sampled_rows.push_back(batch->rows() - 1);
  batch->sample_rules.push_back(request.Rule());
  request.AddEdit(place, &batch->edits);
  if (const int top = request.request().top_logprobs; top >= 0) {
    batch->logprobs.push_back({place, top});
    batch->logprob_places = std::max(batch->logprob_places, 1 + top);
  }
}

void ModelRunner::AddImageRows(RequestState& request, const SchedulerOutput::Item& item, int row,
                               Batch* batch) {
  const int per_image = model_->config().tokens_per_image();
  const auto& spans = request.request().prompt.images;
  for (size_t i = 0; i < spans.size(); ++i) {
    const int image_end = spans[i].begin + per_image;
    const int begin = std::max(item.first, spans[i].begin);
    const int end = std::min(item.first + item.count, image_end);
    if (begin >= end) continue;
    batch->image_rows.push_back(
        {row + begin - item.first, begin - spans[i].begin, end - begin, request.features[i]});
    if (end == image_end) request.features[i] = nullptr;  // the batch holds them now
  }
}

bool ModelRunner::AddStatistics(const SchedulerOutput::Item& item, int first_row, Batch* batch) {
  Sequence& s = *item.sequence;
  if (!s.needs.any()) return false;
  if (!s.committed) s.statistics.Begin(s.needs, shape_, s.view().tokens());
  const StatisticChunk chunk = {.statistics = &s.statistics,
                                .needs = &s.needs,
                                .sequence = batch->sequences() - 1,
                                .first_row = first_row,
                                .first_token = item.first,
                                .count = item.count,
                                .prompt_tokens = s.view().tokens(),
                                .committed = s.committed,
                                .stored_tokens = s.cache.stored(0)};  // as in every layer
  bool next_step = false;
  for (const auto& statistic : statistics_[(built_ - 1) % 2]) {
    next_step |= statistic->Add(chunk) == StatisticDue::kNextStep;
  }
  return next_step;
}

LlavaModel::Output ModelRunner::Finish(const InFlightStep& step) {
  const LlavaModel::Output output = model_->Finish();
  // A sequence that was preempted meanwhile is measured again when it runs again.
  const auto find = [&step](int sequence) -> PromptStatistics* {
    Sequence* s = step.scheduled.items[sequence].sequence;
    return s->running ? &s->statistics : nullptr;
  };
  for (StepStatistic* statistic : step.batch.statistics) statistic->Collect(find);
  return output;
}

bool ModelRunner::BeginLowPass(Sequence* s) {
  std::vector<PageId> pages;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const std::vector<PageId>& own = s->cache.runs(layer).back().pages;  // the only run until now
    pages.insert(pages.end(), own.begin(), own.end());
  }
  const PromptView prompt = s->view();
  if (!model_->BeginLowPass(arena_memory_.get(), pages, prompt, s->needs.Segments(prompt))) {
    return false;
  }
  // No step asked for anything if all of the prompt was found in the prefix cache.
  s->statistics.Begin(s->needs, shape_, prompt.tokens());
  return true;
}

}  // namespace tessera
