// What all tactics of a convolution share: where the input pixels of a result are, and how a result is
// finished.
#pragma once

#include "engine/kernels.h"
#include "engine/kernels/simd.h"

namespace pysdk::engine::PYSDK_ISA {

// Pointers to high x wide input pixels of one image from (y0, x0) on: the pixel that nearest-neighbour
// upsampling repeats, or zeros outside the map.
inline void gather(const ConvShape& s, std::size_t input, const float* map, std::ptrdiff_t y0,
                   std::ptrdiff_t x0, std::size_t high, std::size_t wide, const float* zeros,
                   const float** pixels) {
  const auto height = static_cast<std::ptrdiff_t>(s.in_height << s.upsample);
  const auto width = static_cast<std::ptrdiff_t>(s.in_width << s.upsample);
  const auto stride = static_cast<std::ptrdiff_t>(s.in_blocks(input) * kLanes);
  const std::ptrdiff_t row_stride = stride * static_cast<std::ptrdiff_t>(s.in_width);
  for (std::size_t i = 0; i < high; ++i) {
    const std::ptrdiff_t y = y0 + static_cast<std::ptrdiff_t>(i);
    for (std::size_t j = 0; j < wide; ++j) {
      const std::ptrdiff_t x = x0 + static_cast<std::ptrdiff_t>(j);
      const bool inside = y >= 0 && y < height && x >= 0 && x < width;
      *pixels++ = inside ? map + (y >> s.upsample) * row_stride + (x >> s.upsample) * stride : zeros;
    }
  }
}

// Bias and residual onto 16 channels of a pixel of the result.
inline void finish(const ConvShape& s, const ConvData& data, std::size_t pixel, std::size_t panel,
                   Floats value, Floats bias) {
  const std::size_t at = (pixel * s.panels() + panel) * kLanes;
  value = add(value, bias);
  if (data.residual != nullptr) value = add(value, load(data.residual + at));
  store(data.y + at, value);
}

inline Floats channel_bias(const ConvData& data, std::size_t image, std::size_t panel) {
  return load(data.bias + image * data.bias_step + panel * kLanes);
}

}  // namespace pysdk::engine::PYSDK_ISA
