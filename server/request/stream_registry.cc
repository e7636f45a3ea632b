#include "server/request/stream_registry.h"

#include <mutex>
#include <utility>

#include "base/clock.h"

namespace tessera {

StreamRegistry::StreamRegistry() = default;
StreamRegistry::~StreamRegistry() { TESSERA_CHECK(size() == 0); }

void StreamRegistry::Add(std::shared_ptr<ActiveCall> stream) {
  MutexLock lock(mutex_);
  ActiveCall* key = stream.get();
  streams_.emplace(key, std::move(stream));
}

void StreamRegistry::Remove(ActiveCall* stream) {
  std::shared_ptr<ActiveCall> last;  // destroyed after the lock is released
  {
    MutexLock lock(mutex_);
    auto node = streams_.extract(stream);
    TESSERA_CHECK(!node.empty());
    last = std::move(node.mapped());
    if (streams_.empty()) empty_.notify_all();
  }
}

int StreamRegistry::size() const {
  MutexLock lock(mutex_);
  return static_cast<int>(streams_.size());
}

bool StreamRegistry::WaitUntilEmpty(absl::Time deadline) {
  std::unique_lock<Mutex> lock(mutex_);
  return empty_.wait_for(lock, absl::ToChronoNanoseconds(deadline - SteadyNow()),
                         [this] { return streams_.empty(); });
}

bool StreamRegistry::End(const std::string& request_id, const absl::Status& status) {
  for (const auto& stream : Snapshot()) {
    if (stream->id() != request_id) continue;
    stream->End(status);
    return true;
  }
  return false;
}

void StreamRegistry::EndAll(const absl::Status& status) {
  for (const auto& stream : Snapshot()) stream->End(status);
}

int StreamRegistry::CancelStalled(absl::Time now, absl::Duration limit) {
  int cancelled = 0;
  for (const auto& stream : Snapshot()) cancelled += stream->CancelIfStalled(now, limit) ? 1 : 0;
  return cancelled;
}

std::vector<std::shared_ptr<ActiveCall>> StreamRegistry::Snapshot() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ActiveCall>> all;
  all.reserve(streams_.size());
  for (const auto& [key, stream] : streams_) all.push_back(stream);
  return all;
}

}  // namespace tessera
