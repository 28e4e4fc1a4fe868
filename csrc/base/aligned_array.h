// Zeroed, 64-byte aligned memory of a fixed size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

namespace pysdk {

template <typename T>
class AlignedArray {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector register

  AlignedArray() = default;

  // Throws std::bad_alloc. calloc rather than aligned_alloc: large blocks are then zero pages, touched when
  // used.
  explicit AlignedArray(std::size_t size) : size_(size) {
    if (size > (std::numeric_limits<std::size_t>::max() - kAlignment) / sizeof(T)) throw std::bad_alloc();
    block_ = std::calloc(size * sizeof(T) + kAlignment, 1);
    if (block_ == nullptr) throw std::bad_alloc();
    const auto address = reinterpret_cast<std::uintptr_t>(block_);
    const std::size_t skip = (kAlignment - address % kAlignment) % kAlignment;
    data_ = reinterpret_cast<T*>(static_cast<char*>(block_) + skip);
  }

  AlignedArray(AlignedArray&& other) noexcept { swap(other); }
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~AlignedArray() { std::free(block_); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void swap(AlignedArray& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  void* block_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pysdk
