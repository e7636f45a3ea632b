// Data types, checks and status helpers for every folder.
//
// Errors: absl::Status reports errors of input and environment. TESSERA_CHECK reports bugs of this
// program: it prints and aborts. This header includes no Abseil header, so that .cu files may
// include it. Users of RETURN_IF_ERROR and ASSIGN_OR_RETURN include absl/status themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace tessera {

enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr int64_t DTypeBytes(DType t) { return t == DType::kF32 ? 4 : 2; }
constexpr const char* DTypeName(DType t) {
  return t == DType::kF32 ? "F32" : t == DType::kF16 ? "F16" : "BF16";
}

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
  std::abort();
}

template <class T>
constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}
template <class T>
constexpr T RoundUp(T a, T b) {
  return CeilDiv(a, b) * b;
}

}  // namespace tessera

#define TESSERA_CHECK(condition)                              \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::tessera::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

#define RETURN_IF_ERROR(expr)                                 \
  do {                                                        \
    if (auto status_ = (expr); !status_.ok()) return status_; \
  } while (false)

#define TESSERA_CONCAT_(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_(a, b)
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(TESSERA_CONCAT(statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = std::move(tmp).value()
