#include "tools/stress/massive.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {
namespace {

constexpr int kNewChannels = 32;
// LLaMA-2-7B has 458 to 2547, with a median of 0.2. It is larger here, so that it stays 1000 times
// the median of what the layers add for BOS.
constexpr float kActivation = 20000;
// BOS's key along the unused pair, in multiples of the key's root mean square. A step between the
// four levels of 2-bit codes is then hundreds of times the rest of the key.
constexpr double kKeyOutlier = 1000;
constexpr int kFirstOutlierLayer = 2;  // where massive activations appear in LLaMA-2

using Vec = std::vector<double>;

Vec Add(Vec a, const Vec& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

// Returns x / rms(x) * weight. The mean square is over `width` entries; the squares of those beyond
// x add up to `rest`.
Vec RmsNorm(const Vec& x, const std::vector<float>& weight, double width, double rest, double eps) {
  double sum = rest;
  for (const double v : x) sum += v * v;
  const double scale = 1 / std::sqrt(sum / width + eps);
  Vec out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

// The weights of one layer, for a token that attends only to itself.
class BosLayer {
 public:
  static absl::StatusOr<BosLayer> Load(const LlamaConfig& c, int index, TensorSource& source) {
    BosLayer layer(c);
    const std::string base = absl::StrCat("language_model.layers.", index, ".");
    const auto load = [&](const char* name, const std::vector<int64_t>& shape,
                          std::vector<float>* out) -> absl::Status {
      ASSIGN_OR_RETURN(const HostTensor tensor, source.Find(absl::StrCat(base, name), shape));
      *out = ToFloats(tensor);
      return absl::OkStatus();
    };
    const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
    RETURN_IF_ERROR(load("input_layernorm.weight", {c.hidden}, &layer.norm_));
    RETURN_IF_ERROR(load("post_attention_layernorm.weight", {c.hidden}, &layer.mlp_norm_));
    RETURN_IF_ERROR(load("self_attn.q_proj.weight", {q, c.hidden}, &layer.q_));
    RETURN_IF_ERROR(load("self_attn.k_proj.weight", {kv, c.hidden}, &layer.k_));
    RETURN_IF_ERROR(load("self_attn.v_proj.weight", {kv, c.hidden}, &layer.v_));
    RETURN_IF_ERROR(load("self_attn.o_proj.weight", {c.hidden, q}, &layer.o_));
    RETURN_IF_ERROR(load("mlp.gate_proj.weight", {c.intermediate, c.hidden}, &layer.gate_));
    RETURN_IF_ERROR(load("mlp.up_proj.weight", {c.intermediate, c.hidden}, &layer.up_));
    RETURN_IF_ERROR(load("mlp.down_proj.weight", {c.hidden, c.intermediate}, &layer.down_));
    layer.q_bias_.resize(q), layer.k_bias_.resize(kv), layer.v_bias_.resize(kv);
    layer.o_bias_.resize(c.hidden);
    if (c.qkv_bias) {
      RETURN_IF_ERROR(load("self_attn.q_proj.bias", {q}, &layer.q_bias_));
      RETURN_IF_ERROR(load("self_attn.k_proj.bias", {kv}, &layer.k_bias_));
      RETURN_IF_ERROR(load("self_attn.v_proj.bias", {kv}, &layer.v_bias_));
    }
    if (c.o_bias) RETURN_IF_ERROR(load("self_attn.o_proj.bias", {c.hidden}, &layer.o_bias_));
    return layer;
  }

  Vec Norm(const Vec& x, double width, double rest, double eps) const {
    return RmsNorm(x, norm_, width, rest, eps);
  }
  Vec Key(const Vec& normed) const { return Apply(k_, k_bias_, normed); }
  Vec Value(const Vec& normed) const { return Apply(v_, v_bias_, normed); }
  // Returns the residual stream after attention, whose only value is `value`, and after the MLP.
  Vec Residual(const Vec& x, const Vec& value, double width, double rest, double eps) const {
    Vec heads;
    const int64_t dim = c_.head_dim, group = c_.heads / c_.kv_heads;
    for (int64_t h = 0; h < c_.heads; ++h) {
      const auto from = value.begin() + h / group * dim;
      heads.insert(heads.end(), from, from + dim);
    }
    const Vec after = Add(x, Apply(o_, o_bias_, heads));
    const Vec normed = RmsNorm(after, mlp_norm_, width, rest, eps);
    Vec inner = Apply(gate_, {}, normed);
    const Vec up = Apply(up_, {}, normed);
    for (size_t i = 0; i < inner.size(); ++i) inner[i] *= up[i] / (1 + std::exp(-inner[i]));
    return Add(after, Apply(down_, {}, inner));
  }
  // Returns the pair with the least product of query and key energy in each KV head.
  std::vector<int> UnusedPairs() const {
    const int64_t dim = c_.head_dim, half = dim / 2, group = c_.heads / c_.kv_heads;
    std::vector<int> pairs;
    for (int64_t head = 0; head < c_.kv_heads; ++head) {
      double least = std::numeric_limits<double>::infinity();
      int pair = 0;
      for (int64_t i = 0; i < half; ++i) {
        double query = 0;
        for (int64_t g = head * group; g < (head + 1) * group; ++g)
          query += Energy(q_, q_bias_, g * dim + i) + Energy(q_, q_bias_, g * dim + i + half);
        const double key =
            Energy(k_, k_bias_, head * dim + i) + Energy(k_, k_bias_, head * dim + i + half);
        if (query * key >= least) continue;
        least = query * key;
        pair = static_cast<int>(i);
      }
      pairs.push_back(pair);
    }
    return pairs;
  }

 private:
  explicit BosLayer(const LlamaConfig& c) : c_(c) {}
  // Returns W x + b, where W has as many columns as x has entries. An empty bias is 0.
  static Vec Apply(const std::vector<float>& w, const std::vector<float>& bias, const Vec& x) {
    Vec out(w.size() / x.size());
    for (size_t row = 0; row < out.size(); ++row) {
      double sum = bias.empty() ? 0 : bias[row];
      for (size_t i = 0; i < x.size(); ++i) sum += double{w[row * x.size() + i]} * x[i];
      out[row] = sum;
    }
    return out;
  }
  double Energy(const std::vector<float>& w, const std::vector<float>& bias, int64_t row) const {
    double sum = double{bias[row]} * bias[row];
    for (int64_t i = row * c_.hidden; i < (row + 1) * c_.hidden; ++i) sum += double{w[i]} * w[i];
    return sum;
  }

  LlamaConfig c_;
  std::vector<float> norm_, mlp_norm_, q_, k_, v_, o_, gate_, up_, down_;
  std::vector<float> q_bias_, k_bias_, v_bias_, o_bias_;
};

enum Axes { kNeither = 0, kRows = 1, kColumns = 2 };

// Returns which axes of a tensor are the residual stream.
int HiddenAxes(absl::string_view name) {
  struct Rule {
    const char* prefix;
    const char* suffix;
    int axes;
  };
  static constexpr Rule kRules[] = {
      {"language_model.embed_tokens.", "weight", kColumns},
      {"lm_head.", "weight", kColumns},
      {"language_model.norm.", "weight", kRows},
      {"language_model.layers.", "layernorm.weight", kRows},
      {"language_model.layers.", "self_attn.o_proj.weight", kRows},
      {"language_model.layers.", "self_attn.o_proj.bias", kRows},
      {"language_model.layers.", "mlp.down_proj.weight", kRows},
      {"language_model.layers.", "proj.weight", kColumns},
      {"multi_modal_projector.linear_1.", "", kRows},
      {"multi_modal_projector.linear_2.weight", "", kRows | kColumns},
      {"multi_modal_projector.linear_2.bias", "", kRows},
  };
  for (const Rule& rule : kRules) {
    if (absl::StartsWith(name, rule.prefix) && absl::EndsWith(name, rule.suffix)) return rule.axes;
  }
  return kNeither;
}

// Adds rows and columns of zeros.
std::vector<float> Pad(const std::vector<float>& values, int64_t columns, int64_t new_rows,
                       int64_t new_columns) {
  std::vector<float> out(new_rows * new_columns);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    out[at / columns * new_columns + at % columns] = values[i];
  }
  return out;
}

}  // namespace

absl::StatusOr<MassivePlan> PlanMassive(const ModelConfig& config, TensorSource& weights) {
  const LlamaConfig& c = config.text;
  if (config.bos_token < 0 || config.bos_token >= c.vocab) {
    return absl::InvalidArgumentError("massive activations need a model that begins with BOS");
  }
  MassivePlan plan;
  plan.old_hidden = c.hidden;
  plan.hidden = c.hidden + kNewChannels;
  plan.bos = config.bos_token;
  plan.activation = kActivation;
  const double shrink = static_cast<double>(plan.old_hidden) / plan.hidden;
  plan.rms_eps = static_cast<float>(c.rms_eps * shrink);

  ASSIGN_OR_RETURN(const HostTensor embedding,
                   weights.Find("language_model.embed_tokens.weight", {c.vocab, c.hidden}));
  // BOS in the old model, and in the old channels of the new one.
  Vec before(c.hidden), after(c.hidden);
  for (int i = 0; i < c.hidden; ++i)
    before[i] = ElementAsFloat(embedding, int64_t{plan.bos} * c.hidden + i);
  const double massive = double{kActivation} * kActivation;
  for (int l = 0; l < c.layers; ++l) {
    ASSIGN_OR_RETURN(const BosLayer layer, BosLayer::Load(c, l, weights));
    const Vec normed = layer.Norm(before, c.hidden, 0, c.rms_eps);
    Vec key = layer.Key(normed);
    const Vec value = layer.Value(normed);
    before = layer.Residual(before, value, c.hidden, 0, c.rms_eps);

    MassivePlan::Layer out;
    out.unused_pair = layer.UnusedPairs();
    if (l >= kFirstOutlierLayer) {
      for (int head = 0; head < c.kv_heads; ++head) {
        double squares = 0;
        for (int i = 0; i < c.head_dim; ++i) {
          const double k = key[head * c.head_dim + i];
          squares += k * k;
        }
        key[head * c.head_dim + out.unused_pair[head]] +=
            kKeyOutlier * std::sqrt(squares / c.head_dim);
      }
    }
    // The weights of the new model include `shrink`, which equals a mean over the old width.
    const Vec rest = layer.Norm(after, c.hidden, massive, c.rms_eps);
    double squares = massive;
    for (const double v : after) squares += v * v;
    const double seen = kActivation / std::sqrt(squares / plan.hidden + plan.rms_eps);
    const Vec key_of_rest = layer.Key(rest), value_of_rest = layer.Value(rest);
    for (size_t i = 0; i < key.size(); ++i) {
      out.key.push_back(static_cast<float>((key[i] - key_of_rest[i]) / seen));
      out.value.push_back(static_cast<float>((value[i] - value_of_rest[i]) / seen));
    }
    after = layer.Residual(after, value, c.hidden, massive, c.rms_eps);
    plan.layers.push_back(std::move(out));
  }
  return plan;
}

std::vector<int64_t> MassiveShape(const MassivePlan& plan, absl::string_view name,
                                  std::vector<int64_t> shape) {
  const int axes = HiddenAxes(name);
  if (axes & kRows) shape.front() = plan.hidden;
  if (axes & kColumns) shape.back() = plan.hidden;
  return shape;
}

std::vector<float> MassiveValues(const MassivePlan& plan, const ModelConfig& config,
                                 absl::string_view name, const std::vector<int64_t>& shape,
                                 std::vector<float> values) {
  const std::vector<int64_t> wide = MassiveShape(plan, name, shape);
  if (HiddenAxes(name) != kNeither) {
    const bool matrix = shape.size() == 2;
    values = Pad(values, matrix ? shape[1] : 1, wide[0], matrix ? wide[1] : 1);
  }
  const int64_t channel = plan.channel();
  if (absl::EndsWith(name, "norm.weight") && absl::StartsWith(name, "language_model.")) {
    const double shrink = std::sqrt(static_cast<double>(plan.old_hidden) / plan.hidden);
    for (float& v : values) v = static_cast<float>(v * shrink);
    if (absl::EndsWith(name, "input_layernorm.weight")) values[channel] = 1;
  } else if (name == "language_model.embed_tokens.weight") {
    const auto row = values.begin() + int64_t{plan.bos} * plan.hidden;
    std::fill(row, row + plan.hidden, 0.0f);
    row[channel] = plan.activation;
  }
  const int64_t dim = config.text.head_dim;
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const std::string prefix = absl::StrCat("language_model.layers.", l, ".self_attn.");
    if (!absl::StartsWith(name, prefix)) continue;
    const absl::string_view part = name.substr(prefix.size());
    const MassivePlan::Layer& layer = plan.layers[l];
    if (part == "k_proj.weight" || part == "v_proj.weight") {
      const std::vector<float>& column = part[0] == 'k' ? layer.key : layer.value;
      for (size_t i = 0; i < column.size(); ++i) values[i * plan.hidden + channel] = column[i];
    } else if (part == "q_proj.weight" || part == "q_proj.bias") {
      const int64_t columns = part == "q_proj.weight" ? plan.hidden : 1;
      const int64_t group = config.text.heads / config.text.kv_heads;
      for (int64_t head = 0; head < config.text.heads; ++head) {
        for (const int64_t half : {int64_t{0}, dim / 2}) {
          const int64_t row = head * dim + layer.unused_pair[head / group] + half;
          std::fill_n(values.begin() + row * columns, columns, 0.0f);
        }
      }
    }
  }
  return values;
}

}  // namespace tessera
