#include "vision/tower/feature_cache.h"

#include <utility>

namespace tessera {

std::shared_ptr<const ImageFeatures> FeatureCache::Find(const Digest& key) {
  const auto it = map_.find(key);
  if (it == map_.end()) return nullptr;
  order_.splice(order_.begin(), order_, it->second);
  return it->second->features;
}

void FeatureCache::Insert(const Digest& key, std::shared_ptr<const ImageFeatures> features) {
  if (const auto it = map_.find(key); it != map_.end()) {
    bytes_ -= it->second->features->bytes();
    order_.erase(it->second);
    map_.erase(it);
  }
  if (features->bytes() > max_bytes_) return;
  bytes_ += features->bytes();
  order_.push_front({key, std::move(features)});
  map_[key] = order_.begin();
  while (bytes_ > max_bytes_) {
    const Entry& oldest = order_.back();
    bytes_ -= oldest.features->bytes();
    map_.erase(oldest.key);
    order_.pop_back();
  }
}

void FeatureCache::Clear() {
  map_.clear();
  order_.clear();
  bytes_ = 0;
}

}  // namespace tessera
