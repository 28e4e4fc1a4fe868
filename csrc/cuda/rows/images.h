// What becomes of a finished batch: flags of broken images, and bytes; host + device. The twin of
// bytes_of_pixel is pysdk.images.to_uint8.
#pragma once

#include <cstdint>

#include "noise/float32.h"

namespace pysdk::cuda {

// float32 (N, C, H, W) to uint8 (N, H, W, C).
struct ByteTask {
  const float* x;
  std::uint8_t* out;
  std::uint32_t* broken;  // per image: not 0 where x holds NaN or infinity
  std::uint64_t pixels;   // H * W
  std::uint32_t channels;
  std::uint64_t total;  // N * H * W
  float low, high, scale;
};

PYSDK_INLINE bool is_finite(float v) { return (f32::bits(v) & 0x7f800000u) != 0x7f800000u; }

// Halves are rounded to even.
PYSDK_INLINE std::uint8_t byte_of(float v, const ByteTask& task) {
  const float scaled = f32::mul(f32::sub(f32::clamp(v, task.low, task.high), task.low), task.scale);
  return static_cast<std::uint8_t>(f32::round_to_int(scaled));
}

PYSDK_INLINE void bytes_of_pixel(const ByteTask& task, std::uint64_t number) {
  const std::uint64_t image = number / task.pixels;
  const std::uint64_t pixel = number - image * task.pixels;
  const float* from = task.x + image * task.channels * task.pixels + pixel;
  bool finite = true;
  for (std::uint32_t c = 0; c < task.channels; ++c) {
    const float v = from[c * task.pixels];
    finite = finite && is_finite(v);
    if (task.out != nullptr) task.out[number * task.channels + c] = is_finite(v) ? byte_of(v, task) : 0;
  }
  if (!finite) task.broken[image] = 1;  // every writer writes the same
}

}  // namespace pysdk::cuda
