// What a chain is made for, on whatever device: sizes, which fix its memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pysdk {

struct ChainShape {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t out_channels = 0;
  bool guided = false;
  bool classifier = false;
  std::int64_t threads = 1;

  // Throws std::invalid_argument when a size is out of range, with all products known not to overflow
  // afterwards.
  void validate() const;
  std::size_t network_batch() const { return static_cast<std::size_t>(guided ? 2 * batch : batch); }
  std::size_t image() const { return static_cast<std::size_t>(channels * height * width); }
  std::size_t output() const { return static_cast<std::size_t>(out_channels * height * width); }
  // Bytes of the memory of a chain of so many rows, whatever it is begun with.
  std::size_t most_bytes(std::size_t rows) const;
  std::size_t elements() const { return static_cast<std::size_t>(batch) * image(); }
};

}  // namespace pysdk
