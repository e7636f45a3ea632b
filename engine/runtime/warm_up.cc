#include "engine/runtime/warm_up.h"

#include <algorithm>

#include "base/base.h"
#include "engine/request/request.h"

namespace tessera {
namespace {

constexpr int kPageTokens = PageTokens(Format::kRaw16);

struct Stretch {
  int before, rows;  // tokens that are stored, and new ones
};

// Sequences that share the pages there are: what they read and write is of no interest.
class Pages {
 public:
  Pages(const KvGeometry& geometry, int64_t bytes)
      : units_(PageBytes(Format::kRaw16, geometry) / kPageUnitBytes),
        pages_(bytes / PageBytes(Format::kRaw16, geometry)) {
    TESSERA_CHECK(pages_ > 0);
  }
  int64_t tokens() const { return pages_ * kPageTokens; }  // over all layers
  PageId operator[](int64_t i) const { return static_cast<PageId>(i % pages_ * units_); }

 private:
  int64_t units_, pages_;
};

Batch MakeBatch(const std::vector<Stretch>& sequences, const Pages& pages, int most_sampled,
                int vocab) {
  Batch batch;
  batch.query_begin.push_back(0);
  for (const Stretch& s : sequences) {
    for (int i = 0; i < s.rows; ++i) {
      batch.ids.push_back(batch.rows() % vocab);
      batch.positions.push_back(s.before + i);
    }
    batch.query_begin.push_back(batch.rows());
  }
  batch.transform_rows.assign(batch.rows(), 1);
  batch.transform_sequences.assign(sequences.size(), 1);
  for (int row = std::max(0, batch.rows() - most_sampled); row < batch.rows(); ++row) {
    batch.logprobs.push_back({static_cast<int32_t>(batch.sampled_rows.size()), kMaxTopLogprobs});
    batch.sampled_rows.push_back(row);
    batch.sample_rules.push_back({.temperature = 1, .top_p = 0.9f, .uniform = 0.5});
  }
  batch.logprob_places = 1 + kMaxTopLogprobs;
  batch.build_layer = [&sequences, &pages](int, Batch::Layer* out) {
    *out = {};
    out->run_begin.push_back(0);
    for (const Stretch& s : sequences) {
      const int first = static_cast<int>(out->pages.size()), tokens = s.before + s.rows;
      for (int i = 0; i < CeilDiv(tokens, kPageTokens); ++i) {
        out->pages.push_back(pages[std::ssize(out->pages)]);
      }
      for (int i = s.before; i < tokens; ++i) {
        out->slots.push_back(
            {out->pages[first + i / kPageTokens], static_cast<uint32_t>(i % kPageTokens)});
      }
      out->runs.push_back({Format::kRaw16, first, tokens, kNoPage, {}});
      out->run_begin.push_back(static_cast<int32_t>(out->runs.size()));
    }
  };
  return batch;
}

// As many prompts at once as may be, of all the context. The first as a policy asks that keeps the
// whole spectrum, which takes a device the most memory, the others as FlashCache does.
void WarmUpLowPass(LlavaModel& model, int context, const Pages& pages, const uint8_t* arena) {
  std::vector<PageId> ids;
  for (int i = 0; i < model.config().text.layers * CeilDiv(context, kPageTokens); ++i) {
    ids.push_back(pages[i]);
  }
  const std::vector<uint8_t> vision(context, 1);
  for (int kept = context; model.BeginLowPass(arena, ids, {vision}, {{0, context, kept}});) {
    kept = CeilDiv(context, 5);
  }
  model.FinishLowPass();
}

}  // namespace

void WarmUp(LlavaModel& model, const WarmUpSizes& sizes, uint8_t* arena, int64_t arena_bytes) {
  TESSERA_CHECK(0 < sizes.sequences && sizes.sequences <= sizes.rows && sizes.context > 0);
  const ModelConfig& config = model.config();
  const Pages pages(config.text.kv_geometry(), arena_bytes);
  const auto run = [&](const std::vector<Stretch>& sequences) {
    model.Forward(MakeBatch(sequences, pages, sizes.sequences, config.text.vocab), arena);
    model.Finish();
  };
  // A step of nothing but pictures' tokens, and the prompts around them.
  PreparedImage grey{.side = config.vision.image_size};
  grey.rgb.assign(size_t{3} * grey.side * grey.side, 128);
  model.EncodeImages(
      std::vector<const PreparedImage*>(CeilDiv(sizes.rows, config.tokens_per_image()), &grey));
  std::vector<Stretch> prompts;
  for (int left = sizes.rows; left > 0; left -= prompts.back().rows) {
    prompts.push_back({0, std::min(left, sizes.context)});
  }
  run(prompts);
  // All sequences decode, as far along as the arena lets them be.
  const int64_t share = pages.tokens() / config.text.layers / sizes.sequences;
  const int before = static_cast<int>(std::clamp<int64_t>(share, 1, sizes.context) - 1);
  run(std::vector<Stretch>(sizes.sequences, {before, 1}));
  if (!sizes.low_pass) return;
  const int64_t alone = pages.tokens() / config.text.layers;
  WarmUpLowPass(model, static_cast<int>(std::clamp<int64_t>(alone, 1, sizes.context)), pages,
                arena);
}

}  // namespace tessera
