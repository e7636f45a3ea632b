#include "engine/transfer/staging.h"

#include <algorithm>

#include "base/base.h"

namespace tessera {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kBlockBytes = int64_t{1} << 20;

}  // namespace

void Staging::Begin() {
  ops_->RecordEvent(first_mark_ + turn_);
  turn_ = 1 - turn_;
  ops_->WaitEvent(first_mark_ + turn_);
  for (Block& block : blocks_[turn_]) block.used = block.sent = 0;
}

Staging::Place Staging::Reserve(int64_t bytes) {
  std::vector<Block>& blocks = blocks_[turn_];
  auto it = std::find_if(blocks.begin(), blocks.end(),
                         [bytes](const Block& b) { return b.bytes - b.used >= bytes; });
  if (it == blocks.end()) {
    const int64_t size = std::max(RoundUp(bytes, kAlignment), kBlockBytes << blocks.size());
    blocks.push_back({ops_->AllocateStaging(size), ops_->Allocate(size), size, 0, 0});
    it = blocks.end() - 1;
  }
  const Place place{it->host.get() + it->used, it->device.get() + it->used};
  it->used = std::min(it->bytes, RoundUp(it->used + bytes, kAlignment));
  return place;
}

void Staging::Upload() {
  for (Block& block : blocks_[turn_]) {
    if (block.sent == block.used) continue;
    ops_->CopyToDevice(block.device.get() + block.sent, block.host.get() + block.sent,
                       block.used - block.sent);
    block.sent = block.used;
  }
}

}  // namespace tessera
