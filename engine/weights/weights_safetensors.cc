#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/weights.h"

namespace tessera {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr size_t kMaxShards = 4096;

class SafetensorsSource : public TensorSource {
 public:
  explicit SafetensorsSource(std::string dir) : dir_(std::move(dir)) {}

  absl::Status AddFile(const std::string& name) {
    const std::string path = absl::StrCat(dir_, "/", name);
    ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
    ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensors(file->content(), path));
    const char* data = file->content().data() + header.data_offset;
    for (SafetensorsEntry& entry : header.tensors) {
      const std::string canonical = CanonicalTensorName(entry.name);
      const auto [it, added] = tensors_.try_emplace(canonical);
      if (!added) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor \"", entry.name,
                                                       "\" is already in ", it->second.file,
                                                       " as \"", it->second.entry.name, "\""));
      }
      it->second = {path, data + entry.begin, std::move(entry)};
    }
    files_.push_back(std::move(file));
    return absl::OkStatus();
  }

  // Says whether file `name` holds the tensor that the index calls `tensor`.
  bool Holds(const std::string& name, absl::string_view tensor) const {
    const auto it = tensors_.find(CanonicalTensorName(tensor));
    return it != tensors_.end() && it->second.entry.name == tensor &&
           it->second.file == absl::StrCat(dir_, "/", name);
  }

  bool Has(absl::string_view name) const override { return tensors_.contains(name); }

  absl::StatusOr<HostTensor> Find(absl::string_view name,
                                  const std::vector<int64_t>& shape) override {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) {
      return absl::NotFoundError(absl::StrCat(dir_, ": no tensor \"", name, "\""));
    }
    const auto& [file, data, entry] = it->second;
    const std::string at = absl::StrCat(file, ": tensor \"", entry.name, "\"");
    HostTensor tensor{data, DType::kF32, entry.shape};
    if (entry.dtype == "F16") {
      tensor.dtype = DType::kF16;
    } else if (entry.dtype == "BF16") {
      tensor.dtype = DType::kBF16;
    } else if (entry.dtype != "F32") {
      return absl::UnimplementedError(absl::StrCat(
          at, ": dtype ", entry.dtype, " is not supported (only F32, F16 and BF16 are)"));
    }
    if (entry.shape != shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(at, ": shape [", absl::StrJoin(entry.shape, ", "), "], expected [",
                       absl::StrJoin(shape, ", "), "]"));
    }
    return tensor;
  }

 private:
  struct Located {
    std::string file;
    const char* data = nullptr;
    SafetensorsEntry entry;
  };
  std::string dir_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  absl::flat_hash_map<std::string, Located> tensors_;  // by canonical name
};

bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

absl::Status AddSharded(const nlohmann::json& index, const std::string& index_path,
                        SafetensorsSource* source) {
  const nlohmann::json* map = FindMember(index, "weight_map");
  if (map == nullptr || !map->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": \"weight_map\" is missing or not an object"));
  }
  std::set<std::string> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": tensor \"", tensor.substr(0, 512),
                       "\": not a plain file name: ", file.dump().substr(0, 300)));
    }
    shards.insert(file.get<std::string>());
    if (shards.size() > kMaxShards) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": more than ", kMaxShards, " files"));
    }
  }
  for (const std::string& shard : shards) RETURN_IF_ERROR(source->AddFile(shard));
  for (const auto& [tensor, file] : map->items()) {
    if (source->Holds(file.get_ref<const std::string&>(), tensor)) continue;
    return absl::DataLossError(absl::StrCat(index_path, ": tensor \"", tensor, "\" is not in ",
                                            file.get_ref<const std::string&>()));
  }
  return absl::OkStatus();
}

}  // namespace

std::string CanonicalTensorName(absl::string_view name) {
  // The first prefix that matches is replaced. The older layout comes first.
  static constexpr std::pair<absl::string_view, absl::string_view> kLayouts[] = {
      {"language_model.model.", "language_model."},
      {"language_model.lm_head.", "lm_head."},
      {"model.language_model.", "language_model."},
      {"model.vision_tower.", "vision_tower."},
      {"model.multi_modal_projector.", "multi_modal_projector."},
  };
  std::string canonical(name);
  for (const auto& [from, to] : kLayouts) {
    if (!absl::StartsWith(name, from)) continue;
    canonical = absl::StrCat(to, name.substr(from.size()));
    break;
  }
  // transformers 5 omits the level `vision_model`, which every published checkpoint has.
  constexpr absl::string_view kTower = "vision_tower.", kModel = "vision_model.";
  if (absl::StartsWith(canonical, kTower) &&
      !absl::StartsWith(absl::string_view(canonical).substr(kTower.size()), kModel)) {
    canonical.insert(kTower.size(), kModel.data(), kModel.size());
  }
  return canonical;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& dir) {
  auto source = std::make_unique<SafetensorsSource>(dir);
  const std::string index_path = absl::StrCat(dir, "/", kIndexName);
  absl::StatusOr<nlohmann::json> index = ReadJsonFile(index_path);
  if (index.ok()) {
    RETURN_IF_ERROR(AddSharded(*index, index_path, source.get()));
  } else if (absl::IsNotFound(index.status())) {
    RETURN_IF_ERROR(source->AddFile(kSingleName));
  } else {
    return index.status();
  }
  return source;
}

}  // namespace tessera
