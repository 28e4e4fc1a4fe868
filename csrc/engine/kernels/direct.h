// Convolution of any size as one matrix product: the input pixels of 24 results are gathered into rows
// (im2col for a block that stays in the cache) and multiplied with all panels. 1x1 convolutions and linear
// layers are the same with one tap.
#pragma once

#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"

namespace pysdk::engine::PYSDK_ISA {

// Weights OIHW -> [panel][k][16] with k = (tap, input, channel), the channels of an input padded to blocks of
// 16, or k = (tap, channel) without gaps when dense.
inline void direct_pack(const ConvShape& s, const float* weight, std::size_t first_panel,
                        std::size_t last_panel, float* packed) {
  const std::size_t taps = s.taps(), depth = s.depth_blocks() * kLanes;
  std::size_t all_channels = 0;
  for (std::size_t input = 0; input < s.inputs; ++input) all_channels += s.in_channels[input];
  std::fill(packed + first_panel * depth * kLanes, packed + last_panel * depth * kLanes, 0.0f);
  const std::size_t last_out = std::min(last_panel * kLanes, s.out_channels);
  for (std::size_t out = first_panel * kLanes; out < last_out; ++out) {
    float* column = packed + out / kLanes * depth * kLanes + out % kLanes;
    for (std::size_t tap = 0, k = 0; tap < taps; ++tap) {
      std::size_t before = 0;
      for (std::size_t input = 0; input < s.inputs; ++input) {
        const float* from = weight + (out * all_channels + before) * taps + tap;
        for (std::size_t in = 0; in < s.in_channels[input]; ++in) column[(k + in) * kLanes] = from[in * taps];
        before += s.in_channels[input];
        k += s.dense() ? s.in_channels[input] : s.in_blocks(input) * kLanes;
      }
    }
  }
}

// The input pixels of the results [first, first + rows) -> a, [k/16][rows][16].
inline void direct_input(const ConvShape& s, const ConvData& data, std::size_t first, std::size_t rows,
                         float* a) {
  const std::size_t pixels_out = s.out_height * s.out_width, taps = s.taps();
  if (s.dense()) std::fill_n(a, s.depth_blocks() * rows * kLanes, 0.0f);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t image = (first + row) / pixels_out, pixel = (first + row) % pixels_out;
    const auto y0 = static_cast<std::ptrdiff_t>(pixel / s.out_width * s.stride) - s.pad_top;
    const auto x0 = static_cast<std::ptrdiff_t>(pixel % s.out_width * s.stride) - s.pad_left;
    float* out = a + row * kLanes;
    for (std::size_t tap = 0; tap < taps; ++tap) {
      for (std::size_t input = 0; input < s.inputs; ++input) {
        const std::size_t blocks = s.in_blocks(input);
        const float* map = data.x[input] + image * s.in_height * s.in_width * blocks * kLanes;
        const float* from;
        gather(s, input, map, y0 + static_cast<std::ptrdiff_t>(tap / s.kernel_width),
               x0 + static_cast<std::ptrdiff_t>(tap % s.kernel_width), 1, 1, data.zeros, &from);
        if (s.dense()) {
          for (std::size_t in = 0; in < s.in_channels[0]; ++in) {
            const std::size_t k = tap * s.in_channels[0] + in;
            out[k / kLanes * rows * kLanes + k % kLanes] = from[in];
          }
          continue;
        }
        for (std::size_t block = 0; block < blocks; ++block) {
          store(out, load(from + block * kLanes));
          out += rows * kLanes;
        }
      }
    }
  }
}

inline void direct(const ConvShape& s, const ConvData& data, std::size_t begin, std::size_t end,
                   float* scratch, Lookout& lookout) {
  const Items items = s.items(data.batch);
  const std::size_t depth_blocks = s.depth_blocks(), depth = depth_blocks * kLanes;
  const std::size_t pixels_out = s.out_height * s.out_width;
  std::size_t current = items.parts;  // none
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t part = items.part(item);
    const std::size_t first = items.first_row(part), rows = items.first_row(part + 1) - first;
    if (lookout.leave(rows * depth * kLanes * items.group)) return;
    float* const a = scratch;
    float* const c = scratch + rows * depth;
    if (part != current) {
      direct_input(s, data, first, rows, a);
      current = part;
    }
    const std::size_t panel = items.first_panel(item), panels = items.panel_count(item);
    gemm(rows, a, rows * kLanes, data.packed + panel * depth * kLanes, depth * kLanes, depth_blocks, panels,
         c, rows * kLanes);
    for (std::size_t p = 0; p < panels; ++p) {
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t pixel = first + row;
        finish(s, data, pixel, panel + p, load(c + (p * rows + row) * kLanes),
               channel_bias(data, pixel / pixels_out, panel + p));
      }
    }
  }
}

}  // namespace pysdk::engine::PYSDK_ISA
