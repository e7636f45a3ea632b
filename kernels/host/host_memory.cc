#include "kernels/host/host_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/end_process.h"

namespace tessera {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kSmallPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

[[noreturn]] void OutOfMemory(int64_t bytes) {
  EndProcess("out of memory: " + std::to_string(bytes) + " bytes for the model or the cache");
}

Buffer AllocateSmall(int64_t bytes) {
  void* p = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
  if (p == nullptr) OutOfMemory(bytes);
  std::memset(p, 0, bytes);
  return Buffer(static_cast<uint8_t*>(p), [](uint8_t* q) { std::free(q); });
}

// Maps one huge page more than needed, so that the buffer can start at a huge page's border.
Buffer AllocateLarge(int64_t bytes) {
  const int64_t mapped = RoundUp(bytes, kHugePageBytes) + kHugePageBytes;
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) OutOfMemory(bytes);
  const auto base = reinterpret_cast<uintptr_t>(map);
  auto* p = reinterpret_cast<uint8_t*>(RoundUp<uintptr_t>(base, kHugePageBytes));
  madvise(p, RoundUp(bytes, kHugePageBytes), MADV_HUGEPAGE);  // only advice: a refusal costs speed
  for (int64_t i = 0; i < bytes; i += kSmallPageBytes) static_cast<volatile uint8_t*>(p)[i] = 0;
  return Buffer(p, [map, mapped](uint8_t*) { munmap(map, mapped); });
}

}  // namespace

Buffer AllocateHost(int64_t bytes) {
  TESSERA_CHECK(bytes >= 0);
  if (bytes == 0) bytes = kAlignment;  // an empty buffer still has an address
  return bytes < 2 * kHugePageBytes ? AllocateSmall(bytes) : AllocateLarge(bytes);
}

}  // namespace tessera
