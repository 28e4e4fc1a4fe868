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
  std::vector<std::size_t> offsets;  // of the tensors, in floats
  std::size_t floats = 0;            // of the block
};

// Largest first, each at the lowest place that is free for the whole of its life. The time grows with the
// square of the tensors, of which a program has at most 16384.
Layout lay_out(const std::vector<std::size_t>& sizes, const std::vector<Lifetime>& lifetimes);

}  // namespace pysdk::engine
