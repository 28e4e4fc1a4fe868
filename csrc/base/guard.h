// Gaps between pieces of memory that an address sanitizer watches; nothing in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace pysdk {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGuard = 64;  // floats
inline void guard(const float* at, std::size_t floats) {
  ASAN_POISON_MEMORY_REGION(at, floats * sizeof(float));
}
inline void unguard(const void* at, std::size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(at, bytes); }
#else
constexpr std::size_t kGuard = 0;
inline void guard(const float*, std::size_t) {}
inline void unguard(const void*, std::size_t) {}
#endif

}  // namespace pysdk
