// What a program may ask for: it comes from a file of strangers.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace pysdk::engine {

constexpr std::size_t kMaxChannels = 1 << 16;
constexpr std::size_t kMaxSide = 1 << 14;
constexpr std::size_t kMaxTensors = 1 << 14;              // also of ops; the largest networks have a tenth
constexpr std::size_t kMaxFloats = std::size_t{1} << 33;  // in one tensor, or in all weights: 32 GiB
constexpr std::size_t kMaxWork = std::size_t{1} << 34;    // floats in a network's memory
// A small file must not ask for much memory. Networks need far less than this: 64 Ki numbers in one tensor
// per pixel of the image, and every weight used four times; a little more for small ones.
constexpr std::size_t kMaxPerPixel = 1 << 16, kMaxUses = 4;
constexpr std::size_t kSmall = 1 << 20;
// Packed weights over those that are used: four times as many when transformed, and padded in small layers. A
// little more where there are few.
constexpr std::size_t kMaxGrowth = 16, kSmallPacked = 1 << 24;

[[noreturn]] inline void refuse(const std::string& what) { throw std::invalid_argument(what); }

}  // namespace pysdk::engine
