#include "engine/llava.h"

#include <algorithm>
#include <cstring>

#include "engine/llama.h"
#include "vision/projector.h"

namespace tessera {
namespace {

// Images that run through the tower together: bounds its activations.
constexpr int64_t kImagesPerPass = 8;

// One step's metadata, packed into one host block and sent to the device by one copy.
class Staging {
 public:
  explicit Staging(Ops* ops) : ops_(ops) {}

  void Clear() { host_.clear(); }
  template <class T>
  int64_t Add(const std::vector<T>& values) {
    const int64_t offset = RoundUp<int64_t>(static_cast<int64_t>(host_.size()), 64);
    host_.resize(offset + values.size() * sizeof(T));
    if (!values.empty())
      std::memcpy(host_.data() + offset, values.data(), values.size() * sizeof(T));
    return offset;
  }
  void Upload() {
    const auto bytes = static_cast<int64_t>(host_.size());
    if (bytes > capacity_) {
      capacity_ = 2 * bytes;
      device_ = ops_->Allocate(capacity_);
    }
    ops_->CopyToDevice(device_.get(), host_.data(), bytes);
  }
  template <class T>
  T* At(int64_t offset) const {
    return reinterpret_cast<T*>(device_.get() + offset);
  }

 private:
  Ops* ops_;
  std::vector<uint8_t> host_;
  Buffer device_;
  int64_t capacity_ = 0;
};

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
      : config_(config), ops_(std::move(ops)), staging_(ops_.get()) {}

  absl::Status LoadWeights(TensorSource& files, int max_rows) {
    CountingSource source(&files);
    max_rows_ = max_rows;
    ASSIGN_OR_RETURN(tower_,
                     ClipTower::Load(config_.vision, source, *ops_, "vision_tower.vision_model"));
    ASSIGN_OR_RETURN(projector_, Projector::Load(config_.vision.hidden, config_.text.hidden,
                                                 config_.projector_activation, source, *ops_,
                                                 "multi_modal_projector"));
    ASSIGN_OR_RETURN(decoder_, LlamaDecoder::Load(config_.text, source, *ops_, max_rows));
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

  const float* Forward(const Batch& batch, uint8_t* arena) override {
    const DeviceBatch device = Stage(batch, arena);
    float* embeddings = decoder_->Embed(device);
    const int64_t width = config_.text.hidden;
    for (size_t i = 0; i < batch.splices.size(); ++i) {
      const Batch::Splice& s = batch.splices[i];
      const float* rows =
          reinterpret_cast<const float*>(s.features->data.get()) + s.first_feature * width;
      ops_->ScatterRows(rows, staging_.At<int32_t>(splice_rows_[i]), s.rows, width, embeddings);
    }
    const float* logits = decoder_->Forward(device);
    const int64_t rows = config_.text.layers * device.peak_rows;
    FetchFloats(decoder_->peaks(), rows * device.peaks, &measured_.peaks);
    FetchFloats(decoder_->medians(), device.medians ? rows : 0, &measured_.medians);
    FetchFloats(device.columns, static_cast<int64_t>(batch.columns.size()), &measured_.columns);
    if (logits == nullptr) return nullptr;
    host_logits_.resize(device.logit_rows * config_.text.vocab);
    ops_->CopyToHost(host_logits_.data(), logits, static_cast<int64_t>(host_logits_.size()) * 4);
    return host_logits_.data();
  }

  const Measured& measured() const override { return measured_; }

  void LowPassResiduals(const uint8_t* arena, const std::vector<PageId>& pages,
                        const LowPassSegment& segment, float* out) override {
    const KvGeometry geometry = config_.text.kv_geometry();
    const int64_t bytes = int64_t{geometry.layers} * segment.tokens * 4 * 4;
    if (bytes > residual_bytes_) {
      residual_bytes_ = bytes;
      residuals_ = ops_->Allocate(bytes);
    }
    staging_.Clear();
    const int64_t list = staging_.Add(pages);
    staging_.Upload();
    auto* device = reinterpret_cast<float*>(residuals_.get());
    ops_->LowPassResiduals(arena, geometry, staging_.At<PageId>(list),
                           static_cast<int64_t>(pages.size()) / geometry.layers, segment.first,
                           segment.tokens, segment.kept, device);
    ops_->CopyToHost(out, device, bytes);
  }

  void MoveTokens(uint8_t* arena, const std::vector<MoveBatch>& batches) override {
    for (const MoveBatch& batch : batches) {
      staging_.Clear();
      const int64_t moves = staging_.Add(batch.moves);
      staging_.Upload();
      ops_->MoveTokens(arena, config_.text.kv_geometry(), batch.to, batch.rule,
                       staging_.At<TokenMove>(moves), static_cast<int64_t>(batch.moves.size()));
    }
  }

  Ops& ops() override { return *ops_; }
  const ModelConfig& config() const override { return config_; }
  int64_t parameters() const override { return parameters_; }
  int max_rows() const override { return max_rows_; }

 private:
  void FetchFloats(const float* device, int64_t n, std::vector<float>* host) {
    host->resize(n);
    if (n > 0) ops_->CopyToHost(host->data(), device, n * 4);
  }

  DeviceBatch Stage(const Batch& batch, uint8_t* arena) {
    struct LayerOffsets {
      int64_t slots, pages, runs, run_begin;
    };
    staging_.Clear();
    splice_rows_.clear();
    const int64_t ids = staging_.Add(batch.ids), positions = staging_.Add(batch.positions);
    const int64_t query_begin = staging_.Add(batch.query_begin);
    const int64_t logit_rows = staging_.Add(batch.logit_rows);
    const int64_t peak_rows = staging_.Add(batch.peak_rows);
    const int64_t column_jobs = staging_.Add(batch.column_jobs);
    const int64_t columns = staging_.Add(batch.columns);
    const int64_t transform_rows = staging_.Add(batch.transform_rows);
    const int64_t transform_sequences = staging_.Add(batch.transform_sequences);
    for (const Batch::Splice& s : batch.splices) {
      std::vector<int32_t> rows(s.rows);
      for (int32_t i = 0; i < s.rows; ++i) rows[i] = s.first_row + i;
      splice_rows_.push_back(staging_.Add(rows));
    }
    std::vector<LayerOffsets> layers;
    for (const Batch::Layer& layer : batch.layers)
      layers.push_back({staging_.Add(layer.slots), staging_.Add(layer.pages),
                        staging_.Add(layer.runs), staging_.Add(layer.run_begin)});
    staging_.Upload();

    DeviceBatch device;
    device.rows = batch.rows();
    device.sequences = batch.sequences();
    device.logit_rows = static_cast<int64_t>(batch.logit_rows.size());
    device.ids = staging_.At<int32_t>(ids);
    device.positions = staging_.At<int32_t>(positions);
    device.query_begin = staging_.At<int32_t>(query_begin);
    device.logit_row = staging_.At<int32_t>(logit_rows);
    device.peak_rows = static_cast<int64_t>(batch.peak_rows.size());
    device.peaks = batch.peaks;
    device.medians = batch.medians;
    device.peak_row = staging_.At<int32_t>(peak_rows);
    device.column_jobs = static_cast<int64_t>(batch.column_jobs.size());
    device.column_tokens = batch.column_tokens;
    device.column_job = staging_.At<ColumnJob>(column_jobs);
    device.columns = staging_.At<float>(columns);
    if (!batch.transform_rows.empty()) {
      device.transform_rows = staging_.At<uint8_t>(transform_rows);
      device.transform_sequences = staging_.At<uint8_t>(transform_sequences);
    }
    device.formats = 0;
    for (const Batch::Layer& layer : batch.layers) {
      for (const KvRun& run : layer.runs) device.formats |= 1u << static_cast<int>(run.format);
    }
    device.most_rows = 0;
    for (int64_t s = 0; s < device.sequences; ++s) {
      device.most_rows =
          std::max<int64_t>(device.most_rows, batch.query_begin[s + 1] - batch.query_begin[s]);
    }
    for (const LayerOffsets& o : layers) {
      device.slots.push_back(staging_.At<KvSlot>(o.slots));
      device.kv.push_back({arena, config_.text.kv_geometry(), staging_.At<PageId>(o.pages),
                           staging_.At<KvRun>(o.runs), staging_.At<int32_t>(o.run_begin)});
    }
    return device;
  }

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;  // outlives every Buffer below
  Staging staging_;
  int max_rows_ = 0;
  int64_t parameters_ = 0;
  std::unique_ptr<ClipTower> tower_;
  Projector projector_;
  std::unique_ptr<LlamaDecoder> decoder_;
  Buffer pixels_, vision_out_, residuals_;
  int64_t residual_bytes_ = 0;
  Measured measured_;
  std::vector<int64_t> splice_rows_;  // staging offsets
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
