// The requests that the engine works on, by order of arrival and by sequence.
//
// Ownership: owns them. Threads: the engine's thread.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "engine/runtime/request_state.h"

namespace tessera {

class LiveRequests {
 public:
  RequestState& Add(std::unique_ptr<RequestState> request) {
    RequestState& added = *request;
    by_sequence_[&added.sequence()] = &added;
    by_arrival_.emplace(added.sequence().arrival, std::move(request));
    return added;
  }
  std::unique_ptr<RequestState> Remove(RequestState& request) {
    by_sequence_.erase(&request.sequence());
    return std::move(by_arrival_.extract(request.sequence().arrival).mapped());
  }
  // REQUIRES: Contains(sequence).
  RequestState& Of(const Sequence* sequence) const { return *by_sequence_.at(sequence); }
  // False once the request has ended. A step in flight may still name its sequence.
  bool Contains(const Sequence* sequence) const { return by_sequence_.contains(sequence); }

  bool empty() const { return by_arrival_.empty(); }
  const std::map<int64_t, std::unique_ptr<RequestState>>& by_arrival() const { return by_arrival_; }

 private:
  std::map<int64_t, std::unique_ptr<RequestState>> by_arrival_;
  std::unordered_map<const Sequence*, RequestState*> by_sequence_;
};

}  // namespace tessera
