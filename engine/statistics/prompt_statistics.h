// All statistics of one sequence that its policy reads.
//
// Host memory: what the statistics in use take (their files say how much); nothing for a policy
// that reads none. Threads: the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/policy_stats.h"
#include "engine/statistics/statistic.h"

namespace tessera {

class PromptStatistics {
 public:
  // Makes room for what `needs` asks about `tokens` tokens. Does nothing if it is there already.
  void Begin(const PolicyNeeds& needs, const StatisticShape& shape, int tokens);
  void Clear();  // gives the memory back
  // Drops what nothing reads once the policy has decided.
  void OnCommit();

  // The part of this type, or null if it is not in use.
  template <class T>
  T* Find() const {
    for (const std::unique_ptr<SequenceStatistic>& part : parts_) {
      if (T* found = dynamic_cast<T*>(part.get())) return found;
    }
    return nullptr;
  }

  std::vector<LayerStats> Layers() const;  // valid until the next change
  // The scores of the first part in the table that has any.
  TokenScores Scores() const;
  // SequenceStatistic::Keep of every part.
  void Keep(int layer, absl::Span<const int32_t> kept);

 private:
  int layers_ = 0;
  std::vector<std::unique_ptr<SequenceStatistic>> parts_;
};

}  // namespace tessera
