// The calls that generate and have not ended, by gRPC or HTTP: keeps them alive, counts them for
// draining, and gives up those whose client has stopped reading.
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
#include "base/base.h"

namespace tessera {

// One such call.
class ActiveCall {
 public:
  virtual ~ActiveCall() = default;
  virtual std::string id() const = 0;  // "" until the request's id is known
  // Ends the call with `status` unless it has ended. Any thread.
  virtual void End(const absl::Status& status) = 0;
  // Cancels the call if a write or the finish has been pending for longer than `limit`. Any thread.
  virtual bool CancelIfStalled(absl::Time now, absl::Duration limit) = 0;
};

class StreamRegistry {
 public:
  StreamRegistry();
  ~StreamRegistry();

  void Add(std::shared_ptr<ActiveCall> call);
  void Remove(ActiveCall* call);  // may destroy it
  int size() const;

  // True once there are none; false at the deadline.
  bool WaitUntilEmpty(absl::Time deadline);
  // False if there is no call with this request id.
  bool End(const std::string& request_id, const absl::Status& status);
  void EndAll(const absl::Status& status);
  // Returns how many calls were given up.
  int CancelStalled(absl::Time now, absl::Duration limit);

 private:
  std::vector<std::shared_ptr<ActiveCall>> Snapshot() const;

  mutable Mutex mutex_;
  std::condition_variable_any empty_;
  std::unordered_map<ActiveCall*, std::shared_ptr<ActiveCall>> streams_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
