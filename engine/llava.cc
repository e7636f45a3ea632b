#include "engine/llava.h"

#include <algorithm>
#include <numeric>

#include "engine/kv_residuals.h"
#include "engine/llama.h"
#include "engine/staging.h"
#include "vision/projector.h"

namespace tessera {
namespace {

// Marks of the Ops: two of the staged arrays, two of the steps' answers.
constexpr int kStagingMarks = 0, kAnswerMarks = 2;

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
        staging_(ops_.get(), kStagingMarks),
        residuals_(ops_.get(), &staging_) {}

  absl::Status LoadWeights(TensorSource& files, int max_rows) {
    CountingSource source(&files);
    max_rows_ = max_rows;
    ASSIGN_OR_RETURN(tower_,
                     ClipTower::Load(config_.vision, source, *ops_, "vision_tower.vision_model"));
    ASSIGN_OR_RETURN(projector_, Projector::Load(config_.vision.hidden, config_.text.hidden,
                                                 config_.projector_activation, source, *ops_,
                                                 "multi_modal_projector"));
    ASSIGN_OR_RETURN(decoder_, LlamaDecoder::Load(config_.text, source, *ops_, max_rows));
    banned_ = ops_->Allocate(config_.text.vocab);
    parameters_ = source.elements();
    return absl::OkStatus();
  }

  std::vector<std::shared_ptr<const ImageFeatures>> EncodeImages(
      const std::vector<const PreparedImage*>& images) override {
    std::vector<std::shared_ptr<const ImageFeatures>> out;
    const int64_t side = config_.vision.image_size, image_bytes = side * side * 3;
    const int64_t rows = config_.tokens_per_image(), width = config_.text.hidden;
    for (size_t first = 0; first < images.size(); first += kImagesPerPass) {
      const int64_t n = std::min<int64_t>(kImagesPerPass, images.size() - first);
      if (!pixels_) {
        pixels_ = ops_->Allocate(kImagesPerPass * image_bytes);
        vision_out_ = ops_->Allocate(kImagesPerPass * rows * config_.vision.hidden * 4);
      }
      for (int64_t i = 0; i < n; ++i) {
        TESSERA_CHECK(images[first + i]->side == side);
        ops_->CopyToDevice(pixels_.get() + i * image_bytes, images[first + i]->rgb.data(),
                           image_bytes);
      }
      auto* features = reinterpret_cast<float*>(vision_out_.get());
      tower_->Forward(pixels_.get(), n, config_.processor.mean, config_.processor.std, features);
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
    return out;
  }

  void Ban(const std::vector<int32_t>& ids) override {
    std::vector<uint8_t> banned(config_.text.vocab);
    for (const int32_t id : ids) {
      if (id >= 0 && id < config_.text.vocab) banned[id] = 1;
    }
    ops_->CopyToDevice(banned_.get(), banned.data(), config_.text.vocab);
  }

  void Forward(const Batch& batch, uint8_t* arena) override {
    TESSERA_CHECK(forwards_ - finished_ < std::ssize(asked_));
    Asked& asked = asked_[forwards_ % 2];
    const Asked& before = asked_[(forwards_ + 1) % 2];
    staging_.Begin();
    DeviceBatch device = Stage(batch, arena);
    if (std::any_of(batch.ids.begin(), batch.ids.end(), [](int32_t id) { return id < 0; })) {
      ops_->TakeDrawn(before.drawn(), ids_, batch.rows());
    }
    device.prepare = [&](int64_t layer) {
      const auto staged = static_cast<int64_t>(device.kv.size());
      if (layer < staged) return;
      StageLayers(batch, arena, std::min<int64_t>(config_.text.layers, 3 * staged), &device);
    };
    float* embeddings = decoder_->Embed(device);
    const int64_t width = config_.text.hidden;
    for (size_t i = 0; i < batch.splices.size(); ++i) {
      const Batch::Splice& s = batch.splices[i];
      const float* rows =
          reinterpret_cast<const float*>(s.features->data.get()) + s.first_feature * width;
      ops_->ScatterRows(rows, splice_rows_[i], s.rows, width, embeddings);
    }
    asked.logits = decoder_->Forward(device);
    const int64_t peak_rows = config_.text.layers * device.peak_rows;
    asked.peaks = peak_rows * device.peaks;
    asked.medians = device.medians ? peak_rows : 0;
    asked.columns = device.columns;
    asked.column_floats = static_cast<int64_t>(batch.columns.size());
    asked.logit_floats = static_cast<int64_t>(batch.logit_rows.size()) * config_.text.vocab;
    if (const auto rows = static_cast<int64_t>(batch.drawn_rows.size()); rows > 0) {
      asked.ReserveDrawn(*ops_, rows);
      ops_->DrawTokens(asked.logits + asked.logit_floats, rows, config_.text.vocab, banned_.get(),
                       draw_rules_, asked.drawn());
      ops_->BeginCopyToHost(asked.host_tokens.get(), asked.drawn(), rows * 4);
    }
    ops_->SetMark(kAnswerMarks + static_cast<int>(forwards_ % 2));
    ++forwards_;
  }

  Answers Finish() override {
    const Asked& asked = asked_[finished_ % 2];
    ops_->AwaitMark(kAnswerMarks + static_cast<int>(finished_ % 2));
    ++finished_;
    Fetch(decoder_->peaks(), asked.peaks, &measured_.peaks);
    Fetch(decoder_->medians(), asked.medians, &measured_.medians);
    Fetch(asked.columns, asked.column_floats, &measured_.columns);
    Fetch(asked.logits, asked.logit_floats, &host_logits_);
    return {host_logits_.data(), reinterpret_cast<const int32_t*>(asked.host_tokens.get())};
  }

  const Measured& measured() const override { return measured_; }

  absl::Span<const float> LowPassResiduals(const uint8_t* arena, const std::vector<PageId>& pages,
                                           const std::vector<LowPassSegment>& segments) override {
    return residuals_.Measure(arena, config_.text.kv_geometry(), pages, segments);
  }

  void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) override {
    for (const MoveBatch& batch : batches) {
      const TokenMove* moves = staging_.Add(batch.moves);
      staging_.Upload();
      ops_->MoveTokens(arena, config_.text.kv_geometry(), batch.to, batch.rule, moves,
                       static_cast<int64_t>(batch.moves.size()));
    }
  }

  Ops& ops() override { return *ops_; }
  const ModelConfig& config() const override { return config_; }
  int64_t parameters() const override { return parameters_; }
  int max_rows() const override { return max_rows_; }

 private:
  // What one Forward was asked for, until its Finish. What is fetched then lies on the device where
  // the next Forward leaves its own.
  struct Asked {
    const float* logits = nullptr;
    const float* columns = nullptr;
    int64_t logit_floats = 0, peaks = 0, medians = 0, column_floats = 0;
    Buffer device_tokens, host_tokens;  // int32 [capacity]; the host's are on their way already
    int64_t capacity = 0;

    int32_t* drawn() const { return reinterpret_cast<int32_t*>(device_tokens.get()); }
    void ReserveDrawn(Ops& ops, int64_t rows) {
      if (rows <= capacity) return;
      capacity = 2 * rows;
      device_tokens = ops.Allocate(capacity * 4);
      host_tokens = ops.AllocateStaging(capacity * 4);
    }
  };

  template <class T>
  void Fetch(const T* device, int64_t n, std::vector<T>* host) {
    host->resize(n);
    if (n == 0) return;
    ops_->CopyToHost(host->data(), device, n * static_cast<int64_t>(sizeof(T)));
  }

  // Layers are staged when the decoder comes to them, twice as many at a time as before: the device
  // then works on the ones before.
  DeviceBatch Stage(const Batch& batch, uint8_t* arena) {
    DeviceBatch device;
    device.rows = batch.rows();
    device.sequences = batch.sequences();
    device.ids = ids_ = staging_.Add(batch.ids);
    device.positions = staging_.Add(batch.positions);
    device.query_begin = staging_.Add(batch.query_begin);
    std::vector<int32_t> rows = batch.logit_rows;
    rows.insert(rows.end(), batch.drawn_rows.begin(), batch.drawn_rows.end());
    device.logit_rows = static_cast<int64_t>(rows.size());
    device.logit_row = staging_.Add(rows);
    draw_rules_ = batch.draw_rules.empty() ? nullptr : staging_.Add(batch.draw_rules);
    device.peak_rows = static_cast<int64_t>(batch.peak_rows.size());
    device.peaks = batch.peaks;
    device.medians = batch.medians;
    device.peak_row = staging_.Add(batch.peak_rows);
    device.column_jobs = static_cast<int64_t>(batch.column_jobs.size());
    device.column_tokens = batch.column_tokens;
    device.column_job = staging_.Add(batch.column_jobs);
    device.columns = staging_.Add(batch.columns);
    if (!batch.transform_rows.empty()) {
      device.transform_rows = staging_.Add(batch.transform_rows);
      device.transform_sequences = staging_.Add(batch.transform_sequences);
    }
    splice_rows_.clear();
    for (const Batch::Splice& s : batch.splices) {
      rows.resize(s.rows);
      std::iota(rows.begin(), rows.end(), s.first_row);
      splice_rows_.push_back(staging_.Add(rows));
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
      batch.fill_layer(l, &layer_);
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
    ops_->OutlineAttention({device->query_begin, device->sequences, config_.text.heads,
                            device->kv.data() + first, end - first, formats, most_rows});
  }

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;  // outlives every Buffer below
  Staging staging_;
  KvResiduals residuals_;
  int max_rows_ = 0;
  int64_t parameters_ = 0;
  std::unique_ptr<ClipTower> tower_;
  Projector projector_;
  std::unique_ptr<LlamaDecoder> decoder_;
  Buffer pixels_, vision_out_;
  Measured measured_;
  std::vector<const int32_t*> splice_rows_;  // staged
  Batch::Layer layer_;                       // the one being staged
  Buffer banned_;                            // [vocab]
  int32_t* ids_ = nullptr;                   // [rows] staged
  const DrawRule* draw_rules_ = nullptr;     // [drawn rows] staged, or null
  Asked asked_[2];                           // Forwards take turns
  int64_t forwards_ = 0, finished_ = 0;
  std::vector<float> host_logits_;
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
