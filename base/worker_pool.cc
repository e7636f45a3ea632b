#include "base/worker_pool.h"

#include <pthread.h>

#include <utility>

#include "base/base.h"

namespace tessera {

WorkerPool::WorkerPool(const std::string& name, int threads, size_t max_queue)
    : max_queue_(max_queue) {
  TESSERA_CHECK(threads > 0);
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Work(); });
    pthread_setname_np(threads_.back().native_handle(), name.substr(0, 15).c_str());
  }
}

WorkerPool::~WorkerPool() { Stop(); }

void WorkerPool::Stop() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool WorkerPool::TrySubmit(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (ending_ || queue_.size() >= max_queue_) return false;
    queue_.push_back(std::move(task));
  }
  wake_.NotifyOne();
  return true;
}

size_t WorkerPool::waiting() const {
  MutexLock lock(mutex_);
  return queue_.size();
}

void WorkerPool::Work() {
  while (true) {
    std::function<void()> task;  // its captures are released outside the lock
    {
      MutexLock lock(mutex_);
      while (!ending_ && queue_.empty()) wake_.Wait(mutex_);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

}  // namespace tessera
