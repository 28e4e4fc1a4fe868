// Where the tensors of a run lie in one block of memory.
#pragma once

#include <cstddef>
#include <vector>

namespace pysdk::engine {

constexpr std::size_t kNever = static_cast<std::size_t>(-1);

struct Lifetime {
  std::size_t first = kNever, last = 0;  // ops that write it and read it last
};

struct Layout {
  std::vector<std::size_t> offsets;  // where each tensor begins, in floats
  std::size_t floats = 0;            // in the whole block
};

// Largest first, each at the lowest place that is free for its whole life. The time grows with the square of
// the number of tensors, which is at most 16384.
Layout lay_out(const std::vector<std::size_t>& sizes, const std::vector<Lifetime>& lifetimes);

}  // namespace pysdk::engine
