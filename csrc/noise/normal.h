// Box-Muller: two uniform 32-bit words to two independent standard normals, on host and device.
#pragma once

#include <cstddef>

#include "noise/float32.h"
#include "noise/philox.h"
#if !defined(__CUDACC__)
#include "noise/philox_lanes.h"
#endif

namespace pysdk {

struct NormalPair {
  float first, second;
};

// radius = sqrt(-2 log u), u = float(w0 | 1) / 2^32; the angle is quadrant w1 >> 30 plus a fraction from the
// other bits.
PYSDK_INLINE NormalPair box_muller(std::uint32_t w0, std::uint32_t w1) {
  const float u = f32::mul(f32::from_uint(w0 | 1u), 0x1p-32f);
  const float radius = f32::sqrt(f32::mul(-2.0f, f32::log(u)));
  const float f = f32::mul(
      f32::from_int(static_cast<std::int32_t>(w1 & 0x3fffffffu) - (std::int32_t{1} << 29)), 0x1p-30f);
  const float s = f32::sin_quarter(f);
  const float c = f32::cos_quarter(f);
  // A quarter turn maps (c, s) to (-s, c): odd quadrants swap, and the sign bit is flipped where the axis is
  // negative.
  const std::uint32_t quadrant = w1 >> 30;
  const bool odd = (quadrant & 1u) != 0;
  const std::uint32_t flip_first = ((quadrant + 1u) & 2u) << 30;
  const std::uint32_t flip_second = (quadrant & 2u) << 30;
  const float first = f32::from_bits(f32::bits(odd ? s : c) ^ flip_first);
  const float second = f32::from_bits(f32::bits(odd ? c : s) ^ flip_second);
  return {f32::mul(radius, first), f32::mul(radius, second)};
}

#if !defined(__CUDACC__)
constexpr std::size_t kNormalLanes = 128;  // fill_normal_padded writes whole groups of this many

// Standard normals of elements first .. first + count - 1 of one image; `first` is a multiple of 4, and `out`
// has room for `count` rounded up to kNormalLanes. Loops are split so that each one vectorises.
static inline void fill_normal_padded(NoiseKey key, std::size_t first, std::size_t count,
                                      float* __restrict out) {
  constexpr std::size_t kLanes = kNormalLanes / 4;
  const std::uint32_t index = static_cast<std::uint32_t>(first / 4);
  for (std::size_t group = 0; group * kNormalLanes < count; ++group) {
    std::uint32_t w0[kLanes], w1[kLanes], w2[kLanes], w3[kLanes];
    const std::uint32_t start = index + static_cast<std::uint32_t>(group * kLanes);
    for (std::size_t i = 0; i < kLanes; i += kPhiloxLanes) {
      philox_lanes(key, start + static_cast<std::uint32_t>(i), w0 + i, w1 + i, w2 + i, w3 + i);
    }
    float* __restrict to = out + group * kNormalLanes;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const NormalPair a = box_muller(w0[i], w1[i]);
      const NormalPair b = box_muller(w2[i], w3[i]);
      to[4 * i] = a.first, to[4 * i + 1] = a.second, to[4 * i + 2] = b.first, to[4 * i + 3] = b.second;
    }
  }
}
#endif

}  // namespace pysdk
