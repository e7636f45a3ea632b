// The Generate calls that have not ended: keeps them alive, counts them for draining, and gives up
// those whose client has stopped reading.
//
// Threads: safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/base.h"

namespace tessera {

class GenerateStream;

class StreamRegistry {
 public:
  StreamRegistry();
  ~StreamRegistry();

  void Add(std::shared_ptr<GenerateStream> stream);
  void Remove(GenerateStream* stream);  // may destroy it
  int size() const;

  // True once there are none; false at the deadline.
  bool WaitUntilEmpty(absl::Time deadline);
  // False if there is no call with this request id.
  bool End(const std::string& request_id, const absl::Status& status);
  void EndAll(const absl::Status& status);
  // Returns how many calls were given up.
  int CancelStalled(absl::Time now, absl::Duration limit);

 private:
  std::vector<std::shared_ptr<GenerateStream>> Snapshot() const;

  mutable Mutex mutex_;
  std::condition_variable_any empty_;
  std::unordered_map<GenerateStream*, std::shared_ptr<GenerateStream>> streams_
      TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
