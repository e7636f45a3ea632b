#include "engine/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/base.h"

namespace tessera {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop), progress_(stops_.size()) {
  for (size_t s = 0; s < stops_.size(); ++s) {
    const std::string& stop = stops_[s];
    TESSERA_CHECK(!stop.empty());
    std::vector<size_t>& fallback = progress_[s].fallback;
    fallback.assign(stop.size() + 1, 0);
    for (size_t i = 1, matched = 0; i < stop.size(); ++i) {
      while (matched > 0 && stop[i] != stop[matched]) matched = fallback[matched];
      matched += stop[i] == stop[matched];
      fallback[i + 1] = matched;
    }
  }
}

StopMatcher::Result StopMatcher::Add(absl::string_view text) {
  TESSERA_CHECK(!matched_);
  Result result;
  const size_t before = held_.size();
  held_.append(text.data(), text.size());
  size_t begin = held_.size(), hold = 0;
  for (size_t s = 0; s < stops_.size(); ++s) {
    const std::string& stop = stops_[s];
    auto& [fallback, bytes] = progress_[s];
    for (size_t i = 0; i < text.size(); ++i) {
      while (bytes > 0 && text[i] != stop[bytes]) bytes = fallback[bytes];
      bytes += text[i] == stop[bytes];
      if (bytes < stop.size()) continue;
      // All matches of one stop string are equally long: the first to end is the first to start.
      const size_t start = before + i + 1 - stop.size();
      const bool better = result.matched < 0 || start < begin ||
                          (start == begin && stop.size() > stops_[result.matched].size());
      if (better) {
        begin = start;
        result.matched = static_cast<int>(s);
      }
      break;
    }
    hold = std::max(hold, bytes);
  }
  if (result.matched >= 0) {
    matched_ = true;
    result.text = held_.substr(0, begin);
    if (include_stop_) result.text += stops_[result.matched];
    held_.clear();
  } else {
    const size_t send = held_.size() - hold;
    result.text = held_.substr(0, send);
    held_.erase(0, send);
  }
  return result;
}

std::string StopMatcher::Finish() {
  for (Progress& progress : progress_) progress.bytes = 0;
  return std::exchange(held_, {});
}

}  // namespace tessera
