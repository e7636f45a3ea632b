#include "tests/bench/device_cache.h"

#include <algorithm>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tessera::bench {

absl::StatusOr<CacheLayout> CacheLayout::Parse(const std::string& text) {
  CacheLayout layout{text, {}};
  int open = 0;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, '+'))) {
    const std::vector<std::string> fields = absl::StrSplit(part, ':');
    const std::optional<Format> format = FormatFromName(fields[0]);
    Run run{format.value_or(Format::kRaw16), 0};
    if (!format || fields.size() > 2 ||
        (fields.size() == 2 && (!absl::SimpleAtoi(fields[1], &run.tokens) || run.tokens <= 0))) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not FORMAT[:TOKENS]"));
    }
    open += fields.size() == 1;
    layout.runs.push_back(run);
  }
  if (open != 1) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": one run takes the rest"));
  }
  return layout;
}

CacheLayout CacheLayout::At(int64_t context) const {
  int64_t rest = context;
  for (const Run& run : runs) rest -= run.tokens;
  CacheLayout at{text, {}};
  for (const Run& run : runs) {
    // A short context lacks the oldest tokens.
    const int64_t tokens = run.tokens == 0 ? std::max<int64_t>(rest, 0)
                                           : std::min(run.tokens, rest < 0 ? context : run.tokens);
    if (tokens > 0) at.runs.push_back({run.format, tokens});
  }
  return at;
}

int64_t CacheLayout::Bytes(const KvGeometry& g) const {
  int64_t bytes = 0;
  for (const Run& run : runs) {
    bytes += run.tokens * g.kv_heads * HeadBytes(run.format, g.head_dim) / PageTokens(run.format);
  }
  return bytes;
}

bool CacheLayout::low_bits() const {
  return std::any_of(runs.begin(), runs.end(),
                     [](const Run& run) { return run.format != Format::kRaw16; });
}

uint32_t CacheLayout::formats() const {
  uint32_t bits = 0;
  for (const Run& run : runs) bits |= 1u << static_cast<int>(run.format);
  return bits;
}

DeviceCache::DeviceCache(Device& device, const KvGeometry& geometry, int64_t layers, int64_t batch,
                         int64_t rows, const CacheLayout& layout)
    : geometry_(geometry), query_rows_(batch * rows) {
  // Page formats in the order of the page table, then positions in random order.
  std::vector<Format> formats;
  std::vector<KvRun> runs;
  std::vector<int32_t> run_begin = {0}, query_begin = {0};
  for (int64_t s = 0; s < batch; ++s) {
    for (const CacheLayout::Run& run : layout.runs) {
      runs.push_back(
          {run.format, static_cast<int32_t>(formats.size()), static_cast<int32_t>(run.tokens)});
      formats.insert(formats.end(), CeilDiv<int64_t>(run.tokens, PageTokens(run.format)),
                     run.format);
    }
    run_begin.push_back(static_cast<int32_t>(runs.size()));
    query_begin.push_back(static_cast<int32_t>((s + 1) * rows));
  }
  pages_per_layer_ = static_cast<int64_t>(formats.size());
  std::vector<int64_t> order(layers * pages_per_layer_);
  std::iota(order.begin(), order.end(), 0);
  FastRandom random(1);
  for (int64_t i = static_cast<int64_t>(order.size()) - 1; i > 0; --i) {
    const auto j = static_cast<int64_t>((random.Next() + 1) / 2 * static_cast<float>(i));
    std::swap(order[i], order[j]);
  }
  std::vector<PageId> pages(order.size());
  int64_t bytes = 0;
  for (const int64_t i : order) {
    pages[i] = static_cast<PageId>(bytes / kPageUnitBytes);
    bytes += PageBytes(formats[i % pages_per_layer_], geometry);
  }
  std::vector<KvSlot> slots;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (int64_t s = 0; s < batch; ++s) {
      const KvRun& run = runs[run_begin[s + 1] - 1];
      TESSERA_CHECK(rows <= run.tokens);
      const int per_page = PageTokens(run.format);
      for (auto t = static_cast<int>(run.tokens - rows); t < run.tokens; ++t) {
        slots.push_back({pages[layer * pages_per_layer_ + run.first_page + t / per_page],
                         static_cast<uint32_t>(t % per_page)});
      }
    }
  }
  arena_ = device.ops().Allocate(bytes);
  device.Fill(arena_.get(), DType::kF16, bytes / 2, 3);
  pages_ = Upload(device.ops(), pages);
  runs_ = Upload(device.ops(), runs);
  run_begin_ = Upload(device.ops(), run_begin);
  query_begin_ = Upload(device.ops(), query_begin);
  slots_ = Upload(device.ops(), slots);
}

KvLayerView DeviceCache::Layer(int64_t layer) const {
  return {arena_.get(), geometry_,
          reinterpret_cast<const PageId*>(pages_.get()) + layer * pages_per_layer_,
          reinterpret_cast<const KvRun*>(runs_.get()),
          reinterpret_cast<const int32_t*>(run_begin_.get())};
}

const int32_t* DeviceCache::query_begin() const {
  return reinterpret_cast<const int32_t*>(query_begin_.get());
}

const KvSlot* DeviceCache::last_slots(int64_t layer) const {
  return reinterpret_cast<const KvSlot*>(slots_.get()) + layer * query_rows_;
}

}  // namespace tessera::bench
