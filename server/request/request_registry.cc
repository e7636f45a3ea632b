#include "server/request/request_registry.h"

#include <utility>

#include "base/base.h"
#include "base/clock.h"
#include "server/request/active_request.h"

namespace tessera {

RequestRegistry::RequestRegistry() = default;
RequestRegistry::~RequestRegistry() { TESSERA_CHECK(size() == 0); }

void RequestRegistry::Add(std::shared_ptr<ActiveRequest> request) {
  MutexLock lock(mutex_);
  ActiveRequest* key = request.get();
  requests_.emplace(key, std::move(request));
}

void RequestRegistry::Remove(ActiveRequest* request) {
  std::shared_ptr<ActiveRequest> last;  // destroyed after the lock is released
  {
    MutexLock lock(mutex_);
    auto node = requests_.extract(request);
    TESSERA_CHECK(!node.empty());
    last = std::move(node.mapped());
    if (requests_.empty()) empty_.NotifyAll();
  }
}

int RequestRegistry::size() const {
  MutexLock lock(mutex_);
  return static_cast<int>(requests_.size());
}

bool RequestRegistry::WaitUntilEmpty(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!requests_.empty() && empty_.WaitUntil(mutex_, deadline)) {
  }
  return requests_.empty();
}

bool RequestRegistry::End(const std::string& request_id, const absl::Status& status) {
  for (const auto& request : Snapshot()) {
    if (request->call().id != request_id) continue;
    request->End(status);
    return true;
  }
  return false;
}

void RequestRegistry::EndAll(const absl::Status& status) {
  for (const auto& request : Snapshot()) request->End(status);
}

int RequestRegistry::CancelStalled(absl::Time now, absl::Duration limit) {
  int cancelled = 0;
  for (const auto& request : Snapshot()) cancelled += request->CancelIfStalled(now, limit) ? 1 : 0;
  return cancelled;
}

std::vector<std::shared_ptr<ActiveRequest>> RequestRegistry::Snapshot() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ActiveRequest>> all;
  all.reserve(requests_.size());
  for (const auto& [key, request] : requests_) all.push_back(request);
  return all;
}

}  // namespace tessera
