// An LRU cache of image features by content, limited in bytes. An image that is asked about twice
// is encoded once.
//
// The key is PreparedImage::digest (content, shape, processor). Callers mix in the cache salt where
// tenants must not share. Ownership: entries are shared_ptr, so a sequence keeps its features alive
// after they leave the cache. Threads: one thread (the engine's).
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>

#include "base/digest.h"
#include "kernels/ops.h"

namespace tessera {

struct ImageFeatures {
  Buffer data;  // device float32 [rows, width]
  int64_t rows = 0;
  int64_t width = 0;
  int64_t bytes() const { return rows * width * 4; }
};

class FeatureCache {
 public:
  explicit FeatureCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Returns null on a miss. A hit becomes the most recently used.
  std::shared_ptr<const ImageFeatures> Find(const Digest& key);
  // Inserts or replaces an entry and evicts the least recently used ones until all fit. An entry
  // larger than the limit is not kept.
  void Insert(const Digest& key, std::shared_ptr<const ImageFeatures> features);
  void Clear();

  int64_t bytes() const { return bytes_; }
  int64_t max_bytes() const { return max_bytes_; }
  int64_t entries() const { return static_cast<int64_t>(map_.size()); }

 private:
  struct Entry {
    Digest key;
    std::shared_ptr<const ImageFeatures> features;
  };
  int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> order_;  // most recent first
  std::unordered_map<Digest, std::list<Entry>::iterator, DigestHash> map_;
};

}  // namespace tessera
