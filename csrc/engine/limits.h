// What a program may ask for: it comes from a file of strangers.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace pysdk::engine {

constexpr std::size_t kMaxChannels = 1 << 16;
constexpr std::size_t kMaxSide = 1 << 14;
constexpr std::size_t kMaxTensors = 1 << 14;              // and ops: the largest networks have a tenth
constexpr std::size_t kMaxFloats = std::size_t{1} << 33;  // of one tensor or all weights: 32 GiB
constexpr std::size_t kMaxWork = std::size_t{1} << 34;    // floats of a network's memory
// A small file must not ask for a large memory. What networks need is far below: 64 Ki numbers per pixel of
// the image in one tensor, and every weight used four times; some more for the small ones.
constexpr std::size_t kMaxPerPixel = 1 << 16, kMaxUses = 4;
constexpr std::size_t kSmall = 1 << 20;
// Packed weights against those that are used: transformed they are four times as large, and padded in small
// layers. Some more where there are few.
constexpr std::size_t kMaxGrowth = 16, kSmallPacked = 1 << 24;

[[noreturn]] inline void refuse(const std::string& what) { throw std::invalid_argument(what); }

}  // namespace pysdk::engine
