// Image features by content: an LRU map with a byte limit, so that a picture asked about twice is
// encoded once.
//
// The key is PreparedImage::digest (content + shape + processor), salted by the caller's cache salt
// where tenants must not share. Entries are handed out as shared_ptr: a sequence keeps its
// features alive while it needs them, even after eviction from the cache. One thread (the
// engine's).
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

  // Null on a miss. A hit becomes the most recently used.
  std::shared_ptr<const ImageFeatures> Find(const Digest& key);
  // Evicts least recently used entries until it fits; an entry over the limit is not kept.
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
