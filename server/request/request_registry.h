// The requests that generate and have not ended, over gRPC or HTTP.
//
// The registry keeps them alive, counts them for a drain, and breaks off those whose client has
// stopped reading. Threads: safe.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace tessera {

class ActiveRequest;

class RequestRegistry {
 public:
  RequestRegistry();
  ~RequestRegistry();

  void Add(std::shared_ptr<ActiveRequest> request);
  void Remove(ActiveRequest* request);  // may destroy it
  int size() const;

  // Returns true once there are none, false at the deadline.
  bool WaitUntilEmpty(absl::Time deadline);
  // Ends the request with this id. Returns false if there is none.
  bool End(const std::string& request_id, const absl::Status& status);
  void EndAll(const absl::Status& status);
  // Returns how many calls were broken off.
  int CancelStalled(absl::Time now, absl::Duration limit);

 private:
  std::vector<std::shared_ptr<ActiveRequest>> Snapshot() const;

  mutable Mutex mutex_;
  CondVar empty_;
  std::unordered_map<ActiveRequest*, std::shared_ptr<ActiveRequest>> requests_
      TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
