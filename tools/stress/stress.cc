#include "tools/stress/stress.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/read_file.h"
#include "engine/model/model_config.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/weights.h"
#include "tools/stress/massive.h"
#include "tools/stress/safetensors_writer.h"

namespace tessera {
namespace {

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kSingle[] = "model.safetensors";
// These files are copied unchanged if they exist.
constexpr const char* kOtherFiles[] = {"added_tokens.json",        "chat_template.jinja",
                                       "chat_template.json",       "generation_config.json",
                                       "preprocessor_config.json", "processor_config.json",
                                       "special_tokens_map.json",  "tokenizer.json",
                                       "tokenizer.model",          "tokenizer_config.json"};
constexpr int64_t kMaxJsonBytes = 32 << 20;

absl::Status WriteFile(const std::string& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be written"));
}

class Stress {
 public:
  Stress(std::string dir, std::string out, const StressOptions& options)
      : dir_(std::move(dir)), out_(std::move(out)), options_(options) {}

  absl::Status Run() {
    if (!(options_.factor > 0) || !std::isfinite(options_.factor)) {
      return absl::InvalidArgumentError("the factor must be finite and above 0");
    }
    ASSIGN_OR_RETURN(config_, LoadModelConfig(dir_));
    ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> weights, OpenSafetensors(dir_));
    if (options_.massive) {
      ASSIGN_OR_RETURN(massive_, PlanMassive(config_, *weights));
    }
    std::error_code error;
    std::filesystem::create_directories(out_, error);
    if (error || !std::filesystem::is_empty(out_, error) || error) {
      return absl::InvalidArgumentError(
          absl::StrCat(out_, error ? ": cannot be made" : ": not empty"));
    }
    ASSIGN_OR_RETURN(const std::set<std::string> files, WeightFiles());
    for (const std::string& file : files) RETURN_IF_ERROR(WriteWeights(file));
    for (const char* name : kOtherFiles) {
      const auto content = ReadFile(absl::StrCat(dir_, "/", name), kMaxJsonBytes);
      if (absl::IsNotFound(content.status())) continue;
      RETURN_IF_ERROR(content.status());
      RETURN_IF_ERROR(WriteFile(absl::StrCat(out_, "/", name), *content));
    }
    RETURN_IF_ERROR(WriteIndex());
    return WriteConfig();  // last, because without it no reader accepts the directory
  }

 private:
  // Returns the files of the weights. OpenSafetensors has checked their contents.
  absl::StatusOr<std::set<std::string>> WeightFiles() {
    auto index = ReadJsonFile(absl::StrCat(dir_, "/", kIndex));
    if (absl::IsNotFound(index.status())) return std::set<std::string>{kSingle};
    RETURN_IF_ERROR(index.status());
    index_ = *std::move(index);
    std::set<std::string> files;
    for (const auto& [tensor, file] : index_["weight_map"].items()) {
      files.insert(file.get<std::string>());
    }
    return files;
  }

  std::vector<int64_t> ShapeOf(const SafetensorsEntry& tensor) const {
    const std::string name = CanonicalTensorName(tensor.name);
    return massive_ ? MassiveShape(*massive_, name, tensor.shape) : tensor.shape;
  }

  // Returns the rows of the stressed pairs in one head.
  std::vector<int64_t> StressedRows() const {
    const int64_t half = config_.text.head_dim / 2;
    const int64_t first = 5 * half / 64, second = 40 * half / 64;
    return {first, first + half, second, second + half};
  }

  void StressKeys(absl::string_view name, std::vector<float>* values) const {
    const bool key = absl::StrContains(name, ".self_attn.k_proj."),
               query = absl::StrContains(name, ".self_attn.q_proj.");
    if (!absl::StartsWith(name, "language_model.") || (!key && !query)) return;
    const int64_t heads = key ? config_.text.kv_heads : config_.text.heads;
    const int64_t rows = heads * config_.text.head_dim;
    const int64_t columns = static_cast<int64_t>(values->size()) / rows;
    const double scale = key ? options_.factor : 1 / options_.factor;
    for (int64_t head = 0; head < heads; ++head) {
      for (const int64_t row : StressedRows()) {
        float* at = values->data() + (head * config_.text.head_dim + row) * columns;
        for (int64_t i = 0; i < columns; ++i) at[i] = static_cast<float>(at[i] * scale);
      }
    }
  }

  absl::Status WriteWeights(const std::string& name) {
    const std::string path = absl::StrCat(dir_, "/", name);
    ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
    ASSIGN_OR_RETURN(const SafetensorsHeader header, ParseSafetensors(file->content(), path));
    std::vector<SafetensorsEntry> entries = header.tensors;
    for (SafetensorsEntry& entry : entries) {
      if (DTypeOf(entry).has_value()) entry = {entry.name, "F32", ShapeOf(entry)};
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                     SafetensorsWriter::Create(absl::StrCat(out_, "/", name), entries));
    for (const SafetensorsEntry& entry : header.tensors) {
      const absl::string_view bytes =
          file->content().substr(header.data_offset + entry.begin, entry.end - entry.begin);
      const std::optional<DType> dtype = DTypeOf(entry);
      if (!dtype.has_value()) {  // for example position ids
        total_bytes_ += static_cast<int64_t>(bytes.size());
        RETURN_IF_ERROR(writer->Add(bytes));
        continue;
      }
      std::vector<float> values = ToFloats({bytes.data(), *dtype, entry.shape});
      const std::string canonical = CanonicalTensorName(entry.name);
      if (massive_) {
        values = MassiveValues(*massive_, config_, canonical, entry.shape, std::move(values));
      }
      StressKeys(canonical, &values);
      total_bytes_ += static_cast<int64_t>(values.size()) * 4;
      RETURN_IF_ERROR(
          writer->Add({reinterpret_cast<const char*>(values.data()), values.size() * 4}));
    }
    return writer->Close();
  }

  static std::optional<DType> DTypeOf(const SafetensorsEntry& entry) {
    if (entry.dtype == "F32") return DType::kF32;
    if (entry.dtype == "F16") return DType::kF16;
    if (entry.dtype == "BF16") return DType::kBF16;
    return std::nullopt;
  }

  absl::Status WriteIndex() {
    if (index_.is_null()) return absl::OkStatus();
    index_["metadata"] = {{"total_size", total_bytes_}};
    return WriteFile(absl::StrCat(out_, "/", kIndex), index_.dump(2));
  }

  absl::Status WriteConfig() {
    ASSIGN_OR_RETURN(nlohmann::json json, ReadJsonFile(absl::StrCat(dir_, "/config.json")));
    for (nlohmann::json* object : {&json, &json["text_config"]}) {
      for (const char* key : {"dtype", "torch_dtype"}) {
        if (object->contains(key)) (*object)[key] = "float32";
      }
    }
    if (massive_) {
      nlohmann::json& text = json["text_config"];
      text["hidden_size"] = massive_->hidden;
      text["head_dim"] = config_.text.head_dim;  // no longer hidden_size / heads
      text["rms_norm_eps"] = massive_->rms_eps;
    }
    return WriteFile(absl::StrCat(out_, "/config.json"), json.dump(2));
  }

  const std::string dir_, out_;
  const StressOptions options_;
  ModelConfig config_;
  std::optional<MassivePlan> massive_;
  nlohmann::json index_;  // null if the checkpoint is a single file
  int64_t total_bytes_ = 0;
};

}  // namespace

absl::Status WriteStressCheckpoint(const std::string& dir, const std::string& out,
                                   const StressOptions& options) {
  return Stress(dir, out, options).Run();
}

}  // namespace tessera
