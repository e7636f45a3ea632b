#include "engine/model/llava.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <utility>

#include "engine/model/llama.h"
#include "engine/model/step_sampler.h"
#include "engine/statistics/low_pass_residuals.h"
#include "engine/transfer/fetched.h"
#include "engine/transfer/staging.h"
#include "vision/tower/projector.h"

namespace tessera {
namespace {

// Marks of the Ops, two each, as steps take turns: the staged arrays, where the image tower's work
// begins and ends, where a step begins and where its answers are there. And three for the end of
// all that belongs to a step, its moves too: until the next step has begun, and that step's answers
// tell how long the device had nothing to do before it, one more is under way.
constexpr int kStagingEvents = 0, kVisionEvents = 2, kVisionEndEvents = 4, kBeginEvents = 6,
              kAnswerEvents = 8, kEndEvents = 10, kEnds = 3;

// Images that run through the tower together: bounds its activations.
constexpr int64_t kImagesPerPass = 8;

// Counts the elements that a model asks for: its parameters.
class CountingSource final : public TensorSource {
 public:
  explicit CountingSource(TensorSource* source) : source_(source) {}
  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    ASSIGN_OR_RETURN(HostTensor tensor, source_->Find(name, shape));
    elements_ += tensor.elements();
    return tensor;
  }
  bool Has(absl::string_view name) const override { return source_->Has(name); }
  int64_t elements() const { return elements_; }

 private:
  TensorSource* source_;
  int64_t elements_ = 0;
};

class Llava final : public LlavaModel {
 public:
  Llava(const ModelConfig& config, std::unique_ptr<Ops> ops)
      : config_(config),
        ops_(std::move(ops)),
        staging_(ops_.get(), kStagingEvents),
        sampler_(ops_.get(), &staging_),
        low_pass_(ops_.get(), &staging_) {}

  absl::Status LoadWeights(TensorSource& files, int max_rows) {
    CountingSource source(&files);
    max_rows_ = max_rows;
    ASSIGN_OR_RETURN(tower_,
                     ClipTower::Load(config_.vision, source, *ops_, "vision_tower.vision_model"));
    ASSIGN_OR_RETURN(projector_, Projector::Load(config_.vision.hidden, config_.text.hidden,
                                                 config_.projector_activation, source, *ops_,
                                                 "multi_modal_projector"));
    ASSIGN_OR_RETURN(decoder_, LlamaDecoder::Load(config_.text, source, *ops_, max_rows));
    sampler_.Ban({}, config_.text.vocab);
    parameters_ = source.elements();
    return absl::OkStatus();
  }

  std::vector<std::shared_ptr<const ImageFeatures>> EncodeImages(
      const std::vector<const PreparedImage*>& images) override {
    std::vector<std::shared_ptr<const ImageFeatures>> out;
    ops_->RecordEvent(kVisionEvents + Turn(forwards_));
    encoded_ = true;
    const int64_t side = config_.vision.image_size, image_bytes = side * side * 3;
    const int64_t rows = config_.tokens_per_image(), width = config_.text.hidden;
    for (size_t first = 0; first < images.size(); first += kImagesPerPass) {
      const int64_t n = std::min<int64_t>(kImagesPerPass, images.size() - first);
      if (!vision_out_) {
        vision_out_ = ops_->Allocate(kImagesPerPass * rows * config_.vision.hidden * 4);
      }
      // Staged, or their way to the device would wait for the step that it works on.
      const Staging::Place pixels = staging_.Reserve(n * image_bytes);
      for (int64_t i = 0; i < n; ++i) {
        TESSERA_CHECK(images[first + i]->side == side);
        std::memcpy(pixels.host + i * image_bytes, images[first + i]->rgb.data(), image_bytes);
      }
      staging_.Upload();
      auto* features = reinterpret_cast<float*>(vision_out_.get());
      tower_->Forward(pixels.device, n, config_.processor.mean, config_.processor.std, features);
      for (int64_t i = 0; i < n; ++i) {
        auto image = std::make_shared<ImageFeatures>();
        image->rows = rows;
        image->width = width;
        image->data = ops_->Allocate(image->bytes());
        projector_.Forward(features + i * rows * config_.vision.hidden, rows,
                           reinterpret_cast<float*>(image->data.get()));
        out.push_back(std::move(image));
      }
    }
    ops_->RecordEvent(kVisionEndEvents + Turn(forwards_));
    return out;
  }

  void Ban(const std::vector<int32_t>& ids) override { sampler_.Ban(ids, config_.text.vocab); }

  void Forward(const Batch& batch, uint8_t* arena) override {
    TESSERA_CHECK(forwards_ - finished_ < 2);
    encoded_before_[Turn(forwards_)] = std::exchange(encoded_, false);
    staging_.Begin();
    DeviceBatch device = Stage(batch, arena);
    ops_->RecordEvent(kBeginEvents + Turn(forwards_));
    if (std::any_of(batch.ids.begin(), batch.ids.end(), [](int32_t id) { return id < 0; })) {
      ops_->TakeSampled(sampler_.sampled(Turn(forwards_ + 1)), ids_, batch.rows());
    }
    device.prepare = [&](int64_t end) {
      if (end > std::ssize(device.kv)) StageLayers(batch, arena, end, &device);
    };
    float* embeddings = decoder_->Embed(device);
    const int64_t width = config_.text.hidden;
    for (size_t i = 0; i < batch.image_rows.size(); ++i) {
      const Batch::ImageRows& s = batch.image_rows[i];
      const float* rows =
          reinterpret_cast<const float*>(s.features->data.get()) + s.first_feature * width;
      ops_->ScatterRows(rows, image_row_lists_[i], s.rows, width, embeddings);
    }
    sampler_.Sample(batch, decoder_->Forward(device), Turn(forwards_));
    for (StepStatistic* statistic : batch.statistics) statistic->BeginFetch(*ops_);
    ops_->RecordEvent(kAnswerEvents + Turn(forwards_));
    ops_->RecordEvent(EndEvent(forwards_));
    ++forwards_;
  }

  Output Finish() override {
    const int turn = Turn(finished_);
    const bool encoded = encoded_before_[turn];
    ops_->WaitEvent(kAnswerEvents + turn);
    const double vision =
        encoded ? ops_->SecondsBetween(kVisionEvents + turn, kVisionEndEvents + turn) : 0;
    const int begin = (encoded ? kVisionEvents : kBeginEvents) + turn;
    const double gap = finished_ > 0 ? ops_->SecondsBetween(EndEvent(finished_ - 1), begin) : 0;
    ++finished_;
    return {sampler_.tokens(turn), sampler_.logprobs(turn), sampler_.logits(turn), vision, gap};
  }

  bool BeginLowPass(const uint8_t* arena, const std::vector<PageId>& pages,
                    const PromptView& prompt,
                    const std::vector<LowPassSegment>& segments) override {
    TESSERA_CHECK(forwards_ > 0);
    if (!low_pass_.Begin(arena, config_.text.kv_geometry(), pages, prompt, segments)) return false;
    low_pass_event_ = EndEvent(forwards_ - 1);
    ops_->RecordEvent(low_pass_event_);
    return true;
  }

  std::vector<LowPassStats> FinishLowPass() override {
    ops_->WaitEvent(low_pass_event_);
    return low_pass_.Take();
  }

  void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) override {
    for (const MoveBatch& batch : batches) {
      const TokenMove* moves = staging_.Add(batch.moves);
      staging_.Upload();
      ops_->MoveTokens(arena, config_.text.kv_geometry(), batch.to, batch.rule, moves,
                       static_cast<int64_t>(batch.moves.size()));
    }
    if (forwards_ > 0) ops_->RecordEvent(EndEvent(forwards_ - 1));
  }

  Ops& ops() override { return *ops_; }
  const ModelConfig& config() const override { return config_; }
  int64_t parameters() const override { return parameters_; }
  int max_rows() const override { return max_rows_; }

 private:
  static int Turn(int64_t forward) { return static_cast<int>(forward % 2); }
  static int EndEvent(int64_t forward) { return kEndEvents + static_cast<int>(forward % kEnds); }

  // Layers are staged when the decoder comes to them: the device then works on the ones before.
  DeviceBatch Stage(const Batch& batch, uint8_t* arena) {
    DeviceBatch device;
    device.rows = batch.rows();
    device.sequences = batch.sequences();
    device.ids = ids_ = staging_.Add(batch.ids);
    device.positions = staging_.Add(batch.positions);
    device.query_begin = staging_.Add(batch.query_begin);
    std::vector<int32_t> rows = batch.sampled_rows;
    rows.insert(rows.end(), batch.logit_rows.begin(), batch.logit_rows.end());
    device.logit_rows = static_cast<int64_t>(rows.size());
    device.logit_row = staging_.Add(rows);
    sampler_.Stage(batch);
    device.statistics = batch.statistics;
    for (StepStatistic* statistic : batch.statistics) statistic->Stage(*ops_, staging_);
    if (!batch.transform_rows.empty()) {
      device.transform_rows = staging_.Add(batch.transform_rows);
      device.transform_sequences = staging_.Add(batch.transform_sequences);
    }
    image_row_lists_.clear();
    for (const Batch::ImageRows& s : batch.image_rows) {
      rows.resize(s.rows);
      std::iota(rows.begin(), rows.end(), s.first_row);
      image_row_lists_.push_back(staging_.Add(rows));
    }
    const int64_t layers = config_.text.layers;
    device.slots.reserve(layers);
    device.kv.reserve(layers);
    StageLayers(batch, arena, 1, &device);
    return device;
  }

  // Until `end` layers are staged, and their attention told ahead.
  void StageLayers(const Batch& batch, uint8_t* arena, int64_t end, DeviceBatch* device) {
    const auto first = static_cast<int64_t>(device->kv.size());
    uint32_t formats = 0;
    for (auto l = static_cast<int>(device->kv.size()); l < end; ++l) {
      batch.build_layer(l, &layer_);
      device->slots.push_back(staging_.Add(layer_.slots));
      const PageId* pages = staging_.Add(layer_.pages);
      const KvRun* runs = staging_.Add(layer_.runs);
      device->kv.push_back(
          {arena, config_.text.kv_geometry(), pages, runs, staging_.Add(layer_.run_begin)});
      for (const KvRun& run : layer_.runs) formats |= 1u << static_cast<int>(run.format);
    }
    staging_.Upload();
    int64_t most_rows = 0;
    for (size_t s = 1; s < batch.query_begin.size(); ++s) {
      most_rows = std::max<int64_t>(most_rows, batch.query_begin[s] - batch.query_begin[s - 1]);
    }
    ops_->PlanAttention({device->query_begin, device->sequences, config_.text.heads,
                         device->kv.data() + first, end - first, formats, device->rows, most_rows});
  }

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;  // outlives every Buffer below
  Staging staging_;
  StepSampler sampler_;
  LowPassMeasurement low_pass_;
  int low_pass_event_ = 0;  // behind the last that was begun
  int max_rows_ = 0;
  int64_t parameters_ = 0;
  std::unique_ptr<ClipTower> tower_;
  Projector projector_;
  std::unique_ptr<LlamaDecoder> decoder_;
  Buffer vision_out_;
  std::vector<const int32_t*> image_row_lists_;  // staged
  Batch::Layer layer_;                           // the one being staged
  int32_t* ids_ = nullptr;                       // [rows] staged
  int64_t forwards_ = 0, finished_ = 0;
  bool encoded_ = false;         // images, since the last Forward
  bool encoded_before_[2] = {};  // images, before the Forward of that turn
};

}  // namespace

absl::StatusOr<std::unique_ptr<LlavaModel>> LlavaModel::Load(const ModelConfig& config,
                                                             TensorSource& source,
                                                             std::unique_ptr<Ops> ops,
                                                             int max_rows) {
  auto model = std::make_unique<Llava>(config, std::move(ops));
  RETURN_IF_ERROR(model->LoadWeights(source, max_rows));
  return model;
}

}  // namespace tessera
