// Group normalisation of one map or two behind each other, with SiLU.
#pragma once

#include <cmath>

#include "engine/kernels/math.h"

namespace pysdk::engine::PYSDK_ISA {

// Sums of x - x_0 and (x - x_0)^2 over one slab of pixels, per channel; x_0 is the image's first pixel.
// Without the shift a mean far from zero would cancel the variance.
inline void slab_sums(const float* x, const float* shift, std::size_t pixels, std::size_t stride,
                      double* sums, double* squares) {
  constexpr std::size_t kRun = 64;  // pixels summed in float before they go to double
  for (std::size_t block = 0; block < stride; block += kLanes) {
    const Floats first = load(shift + block);
    double sum[kLanes] = {}, square[kLanes] = {};
    for (std::size_t begin = 0; begin < pixels; begin += kRun) {
      const std::size_t end = std::min(begin + kRun, pixels);
      Floats s = zero(), q = zero();
      for (std::size_t pixel = begin; pixel < end; ++pixel) {
        const Floats d = sub(load(x + pixel * stride + block), first);
        s = add(s, d);
        q = fma(d, d, q);
      }
      float s_lanes[kLanes], q_lanes[kLanes];
      store(s_lanes, s);
      store(q_lanes, q);
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        sum[lane] += static_cast<double>(s_lanes[lane]);
        square[lane] += static_cast<double>(q_lanes[lane]);
      }
    }
    std::copy_n(sum, kLanes, sums + block);
    std::copy_n(square, kLanes, squares + block);
  }
}

inline void norm_sums(const NormShape& s, const NormData& data, std::size_t begin, std::size_t end,
                      Lookout& lookout) {
  for (std::size_t item = begin; item < end; ++item) {
    if (lookout.leave(NormShape::kSlab * s.sums_step() * 4)) return;
    const std::size_t image = item / s.slabs(), first = item % s.slabs() * NormShape::kSlab;
    double* sums = data.sums + item * s.sums_step();
    for (std::size_t input = 0; input < s.inputs; ++input) {
      const std::size_t stride = padded(s.in_channels[input]);
      const float* map = data.x[input] + image * s.pixels * stride;
      slab_sums(map + first * stride, map, std::min(NormShape::kSlab, s.pixels - first), stride, sums,
                sums + stride);
      sums += 2 * stride;
    }
  }
}

// y = a x + b per channel of the image.
inline void coefficients(const NormShape& s, const NormData& data, std::size_t image, float* a, float* b) {
  const std::size_t per_group = s.channels() / s.groups, stride0 = padded(s.in_channels[0]),
                    step = s.sums_step();
  const double count = static_cast<double>(s.pixels);
  std::fill_n(a, padded(s.channels()), 0.0f);
  std::fill_n(b, padded(s.channels()), 0.0f);
  for (std::size_t group = 0; group < s.groups; ++group) {
    // Mean and sum of squared deviations of the channels, each from its own shift, joined (Chan et al.).
    double mean = 0, squares = 0, weight = 0;
    for (std::size_t c = group * per_group; c < (group + 1) * per_group; ++c) {
      const std::size_t input = c < s.in_channels[0] ? 0 : 1, stride = padded(s.in_channels[input]);
      const std::size_t channel = input == 0 ? c : c - s.in_channels[0];
      const double* sums = data.sums + image * s.slabs() * step + (input == 0 ? 0 : 2 * stride0) + channel;
      double sum = 0, square = 0;
      for (std::size_t slab = 0; slab < s.slabs(); ++slab) {
        sum += sums[slab * step];
        square += sums[slab * step + stride];
      }
      const double shift = static_cast<double>(data.x[input][image * s.pixels * stride + channel]);
      const double channel_mean = shift + sum / count;
      const double delta = channel_mean - mean, total = weight + count;
      squares += square - sum * (sum / count) + delta * delta * (weight * count / total);
      mean += delta * (count / total);
      weight = total;
    }
    const double variance = squares / weight;
    // Deviations above 1e18 overflow a square: NaN, lest they vanish in a division by infinity.
    const double inverse =
        std::isinf(variance) ? std::nan("")
                             : 1 / std::sqrt((variance < 0 ? 0 : variance) + static_cast<double>(s.epsilon));
    for (std::size_t c = group * per_group; c < (group + 1) * per_group; ++c) {
      double factor = static_cast<double>(data.gamma[c]) * inverse;
      double offset = static_cast<double>(data.beta[c]) - mean * factor;
      if (data.scale != nullptr) {
        const double more = 1 + static_cast<double>(data.scale[image * data.scale_step + c]);
        factor *= more;
        offset = offset * more + static_cast<double>(data.shift[image * data.shift_step + c]);
      }
      a[c] = static_cast<float>(factor);
      b[c] = static_cast<float>(offset);
    }
  }
}

template <bool kSilu>
inline void apply(const float* x, std::size_t x_step, std::size_t pixels, std::size_t channels,
                  const float* a, const float* b, float* y, std::size_t y_step) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::size_t c = 0; c < channels; c += kLanes) {
      const Floats value = fma(load(x + pixel * x_step + c), load(a + c), load(b + c));
      store(y + pixel * y_step + c, kSilu ? silu(value) : value);
    }
  }
}

// scratch: three pixels of the result
inline void norm_apply(const NormShape& s, const NormData& data, std::size_t begin, std::size_t end,
                       float* scratch, Lookout& lookout) {
  const std::size_t out_step = padded(s.channels());
  float *a = scratch, *b = a + out_step, *joined = b + out_step;
  const auto run = s.silu ? apply<true> : apply<false>;
  std::size_t current = static_cast<std::size_t>(-1);
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t image = item / s.slabs(), first = item % s.slabs() * NormShape::kSlab;
    const std::size_t pixels = std::min(NormShape::kSlab, s.pixels - first);
    if (lookout.leave(NormShape::kSlab * out_step * 8)) return;
    if (image != current) coefficients(s, data, image, a, b);
    current = image;
    float* y = data.y + (image * s.pixels + first) * out_step;
    const float* x[kMaxInputs] = {};
    std::size_t step[kMaxInputs] = {};
    for (std::size_t input = 0; input < s.inputs; ++input) {
      step[input] = padded(s.in_channels[input]);
      x[input] = data.x[input] + (image * s.pixels + first) * step[input];
    }
    if (s.inputs == 1) {
      run(x[0], step[0], pixels, step[0], a, b, y, out_step);
    } else if (s.in_channels[0] % kLanes == 0) {
      run(x[0], step[0], pixels, step[0], a, b, y, out_step);
      run(x[1], step[1], pixels, step[1], a + step[0], b + step[0], y + step[0], out_step);
    } else {  // the second input starts inside a block
      std::fill_n(joined, out_step, 0.0f);
      for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
        std::copy_n(x[0] + pixel * step[0], s.in_channels[0], joined);
        std::copy_n(x[1] + pixel * step[1], s.in_channels[1], joined + s.in_channels[0]);
        run(joined, out_step, 1, out_step, a, b, y + pixel * out_step, out_step);
      }
    }
  }
}

}  // namespace pysdk::engine::PYSDK_ISA
