// Large memory for floats, in huge pages where the system has them: a network's weights span many megabytes,
// and address translation would cost more than reading them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/guard.h"

namespace pysdk {

class Pages {
 public:
  Pages() = default;
  // Zeroed. Throws std::bad_alloc.
  explicit Pages(std::size_t floats) : size_(floats) {
    if (floats == 0) return;
    if (floats > kMost) throw std::bad_alloc();
    bytes_ = (floats * sizeof(float) + kHuge - 1) / kHuge * kHuge;
    void* const at =
        mmap(nullptr, bytes_ + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    mapping_ = at;
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    data_ = reinterpret_cast<float*>((address + kHuge - 1) / kHuge * kHuge);
#if defined(MADV_HUGEPAGE)
    if (floats * sizeof(float) >= kHuge) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
  }
  Pages(Pages&& other) noexcept { swap(other); }
  Pages& operator=(Pages&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Pages() {
    if (mapping_ == nullptr) return;
    unguard(mapping_, bytes_ + kHuge);
    munmap(mapping_, bytes_ + kHuge);
  }

  float* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t kHuge = std::size_t{2} << 20;
  static constexpr std::size_t kMost = std::size_t{1} << 44;

  void swap(Pages& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(bytes_, other.bytes_);
  }

  void* mapping_ = nullptr;
  float* data_ = nullptr;
  std::size_t size_ = 0, bytes_ = 0;
};

}  // namespace pysdk
