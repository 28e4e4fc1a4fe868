// 3x3 convolution with stride 1 by Winograd's minimal filtering (Lavin & Gray,
// https://arxiv.org/abs/1509.09308): an m x m tile of the result from an (m+2) x (m+2) tile d of the input is
//
//     Y = A^T [ (G g G^T) * (B^T d B) ] A
//
// whose elementwise product, summed over input channels, is (m+2)^2 matrix products over tiles. m = 4 needs
// 36 instead of 144 multiplications per tile and channel pair, m = 2 16 instead of 36.
//
// Points: 0, +-0.625, +-1.5 and infinity for m = 4, which halve the rounding error of the usual +-1, +-2; 0,
// +-1 and infinity for m = 2.
#pragma once

#include <array>
#include <utility>

#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"

namespace pysdk::engine::PYSDK_ISA {

template <int M>
struct Filter;

template <>
struct Filter<2> {
  static void weight(const Floats* g, Floats* out, int step) {  // G g
    const Floats half = all(0.5f);
    const Floats even = mul(half, add(g[0], g[2])), odd = mul(half, g[1]);
    out[0] = g[0];
    out[step] = add(even, odd);
    out[2 * step] = sub(even, odd);
    out[3 * step] = g[2];
  }
  static void input(const Floats* d, Floats* out, int step) {  // B^T d
    out[0] = sub(d[0], d[2]);
    out[step] = add(d[1], d[2]);
    out[2 * step] = sub(d[2], d[1]);
    out[3 * step] = sub(d[1], d[3]);
  }
  static void output(const Floats* m, Floats* out, int step) {  // A^T m
    const Floats sum = add(m[1], m[2]), difference = sub(m[1], m[2]);
    out[0] = add(m[0], sum);
    out[step] = sub(difference, m[3]);
  }
};

template <>
struct Filter<4> {
  static constexpr double kA = 0.625, kB = 1.5, kA2 = kA * kA, kB2 = kB * kB;
  static constexpr double kNa = 2 * kA2 * (kA2 - kB2), kNb = 2 * kB2 * (kB2 - kA2);

  static void weight(const Floats* g, Floats* out, int step) {
    const Floats even_a = fma(g[2], all(kA2 / kNa), mul(g[0], all(1 / kNa))), odd_a = all(kA / kNa);
    const Floats even_b = fma(g[2], all(kB2 / kNb), mul(g[0], all(1 / kNb))), odd_b = all(kB / kNb);
    out[0] = mul(g[0], all(1 / (kA2 * kB2)));
    out[step] = fma(g[1], odd_a, even_a);
    out[2 * step] = fnma(g[1], odd_a, even_a);
    out[3 * step] = fma(g[1], odd_b, even_b);
    out[4 * step] = fnma(g[1], odd_b, even_b);
    out[5 * step] = g[2];
  }
  static void input(const Floats* d, Floats* out, int step) {
    const Floats a = all(kA), b = all(kB), a2 = all(kA2), b2 = all(kB2), product = all(kA2 * kB2),
                 sum = all(kA2 + kB2);
    const Floats even_a = fnma(b2, d[2], d[4]), odd_a = fnma(b2, d[1], d[3]);
    const Floats even_b = fnma(a2, d[2], d[4]), odd_b = fnma(a2, d[1], d[3]);
    out[0] = fma(product, d[0], fnma(sum, d[2], d[4]));
    out[step] = fma(a, odd_a, even_a);
    out[2 * step] = fnma(a, odd_a, even_a);
    out[3 * step] = fma(b, odd_b, even_b);
    out[4 * step] = fnma(b, odd_b, even_b);
    out[5 * step] = fma(product, d[1], fnma(sum, d[3], d[5]));
  }
  static void output(const Floats* m, Floats* out, int step) {
    const Floats a = all(kA), b = all(kB), a2 = all(kA2), b2 = all(kB2), a3 = all(kA2 * kA),
                 b3 = all(kB2 * kB);
    const Floats even_a = add(m[1], m[2]), odd_a = sub(m[1], m[2]);
    const Floats even_b = add(m[3], m[4]), odd_b = sub(m[3], m[4]);
    out[0] = add(m[0], add(even_a, even_b));
    out[step] = fma(a, odd_a, mul(b, odd_b));
    out[2 * step] = fma(a2, even_a, mul(b2, even_b));
    out[3 * step] = fma(a3, odd_a, fma(b3, odd_b, m[5]));
  }
};

// Floats from point to point of a panel's transformed weights: an odd number of cache lines, so that the
// points do not meet in one set of the cache.
inline std::size_t weight_step(const ConvShape& s) { return (s.in_blocks(0) * kLanes + 1) * kLanes; }

template <int M>
constexpr int kLines = static_cast<int>(lines_at_once(M));

// Lines from `First` of G g G^T of one panel: [input channel][tap][16] -> [point][input channel][16], points
// u_step floats apart.
template <int M, int First>
void winograd_weight_from(const float* packed, std::size_t depth, float* u, std::size_t u_step) {
  constexpr int kSide = M + 2;
  for (std::size_t in = 0; in < depth; ++in, packed += 9 * kLanes) {
    Floats lines[kSide][3];  // the compiler leaves out what is not used
    for (int j = 0; j < 3; ++j) {
      const Floats g[3] = {load(packed + j * kLanes), load(packed + (3 + j) * kLanes),
                           load(packed + (6 + j) * kLanes)};
      Filter<M>::weight(g, &lines[0][j], 3);
    }
    float* out = u + in * kLanes;
#pragma GCC unroll 6
    for (int i = First; i < First + kLines<M>; ++i) {
      Floats line[kSide];
      Filter<M>::weight(lines[i], line, 1);
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j, out += u_step) store(out, line[j]);
    }
  }
}

template <int M>
void winograd_weight(std::size_t first_line, const float* packed, std::size_t depth, float* u,
                     std::size_t u_step) {
  using Transform = void (*)(const float*, std::size_t, float*, std::size_t);
  constexpr auto kTransforms = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array<Transform, sizeof...(I)>{winograd_weight_from<M, I * kLines<M>>...};
  }(std::make_integer_sequence<int, (M + 2) / kLines<M>>());
  kTransforms[first_line / kLines<M>](packed, depth, u, u_step);
}

// Weights OIHW of one panel -> [input channel][tap][16]
inline void winograd_taps(const ConvShape& s, const float* weight, std::size_t panel, float* packed) {
  constexpr std::size_t kTaps = 9;
  std::fill_n(packed, s.in_blocks(0) * kLanes * kTaps * kLanes, 0.0f);
  const std::size_t first = panel * kLanes, last = std::min(first + kLanes, s.out_channels);
  for (std::size_t out = first; out < last; ++out) {
    const float* from = weight + out * s.in_channels[0] * kTaps;
    for (std::size_t i = 0; i < s.in_channels[0] * kTaps; ++i) packed[i * kLanes + out - first] = from[i];
  }
}

template <int M>
void winograd_pack(const ConvShape& s, const float* weight, std::size_t first_panel, std::size_t last_panel,
                   float* packed, float* one) {
  const std::size_t depth = s.in_blocks(0) * kLanes, taps = depth * s.taps() * kLanes;
  for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
    if (s.transformed()) {
      winograd_taps(s, weight, panel, one);
      float* const to = packed + panel * s.points() * weight_step(s);
      for (std::size_t line = 0; line < M + 2; line += kLines<M>) {
        winograd_weight<M>(line, one, depth, to + line * (M + 2) * weight_step(s), weight_step(s));
      }
    } else {
      winograd_taps(s, weight, panel, packed + panel * taps);
    }
  }
}

// B^T d B of the tiles [first, first + rows) -> v, [point][block][rows][16], points v_step floats apart.
template <int M>
void winograd_input(const ConvShape& s, const ConvData& data, std::size_t first, std::size_t rows, float* v,
                    std::size_t v_step) {
  constexpr int kSide = M + 2;
  const std::size_t blocks = s.in_blocks(0);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t tile = first + row;
    const std::size_t image = tile / (s.tiles_high * s.tiles_wide);
    const std::ptrdiff_t y0 = static_cast<std::ptrdiff_t>(tile / s.tiles_wide % s.tiles_high * M) - s.pad_top;
    const std::ptrdiff_t x0 = static_cast<std::ptrdiff_t>(tile % s.tiles_wide * M) - s.pad_left;
    const float* pixels[kSide * kSide];
    gather(s, 0, data.x[0] + image * s.in_height * s.in_width * blocks * kLanes, y0, x0, kSide, kSide,
           data.zeros, pixels);
    for (std::size_t block = 0; block < blocks; ++block) {
      Floats columns[kSide * kSide];
      for (int j = 0; j < kSide; ++j) {
        Floats d[kSide];
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) d[i] = load(pixels[i * kSide + j] + block * kLanes);
        Filter<M>::input(d, columns + j, kSide);
      }
      float* out = v + (block * rows + row) * kLanes;
      for (int i = 0; i < kSide; ++i) {
        Floats line[kSide];
        Filter<M>::input(columns + i * kSide, line, 1);
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) store(out + (i * kSide + j) * v_step, line[j]);
      }
    }
  }
}

// A^T m A of the tiles [first, first + rows) for the 16 channels of a panel, into the result.
template <int M>
void winograd_output(const ConvShape& s, const ConvData& data, std::size_t first, std::size_t rows,
                     std::size_t panel, const float* m) {
  constexpr int kSide = M + 2;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t tile = first + row;
    const std::size_t image = tile / (s.tiles_high * s.tiles_wide);
    const std::size_t y0 = tile / s.tiles_wide % s.tiles_high * M;
    const std::size_t x0 = tile % s.tiles_wide * M;
    Floats columns[M * kSide];
    for (int j = 0; j < kSide; ++j) {
      Floats d[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) d[i] = load(m + ((i * kSide + j) * rows + row) * kLanes);
      Filter<M>::output(d, columns + j, kSide);
    }
    const Floats bias = channel_bias(data, image, panel);
    const std::size_t high = std::min<std::size_t>(M, s.out_height - y0);
    const std::size_t wide = std::min<std::size_t>(M, s.out_width - x0);
    for (std::size_t i = 0; i < high; ++i) {
      Floats line[M];
      Filter<M>::output(columns + i * kSide, line, 1);
      const std::size_t pixel = (image * s.out_height + y0 + i) * s.out_width + x0;
      for (std::size_t j = 0; j < wide; ++j) finish(s, data, pixel + j, panel, line[j], bias);
    }
  }
}

// A worker transforms the input of a part once for all panels it gets. Points are computed line by line:
// weights that are transformed here then take a sixth of the room, and stay in the cache beside the input.
template <int M>
void winograd(const ConvShape& s, const ConvData& data, std::size_t begin, std::size_t end, float* scratch,
              Lookout& lookout) {
  constexpr std::size_t kSide = M + 2, kPoints = kSide * kSide, kTaps = 9, kPass = kSide * kLines<M>;
  const Items items = s.items(data.batch);
  const std::size_t blocks = s.in_blocks(0), depth = blocks * kLanes;
  const std::size_t u_step = weight_step(s);
  std::size_t current = items.parts;  // none
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t part = items.part(item);
    const std::size_t first = items.first_row(part), rows = items.first_row(part + 1) - first;
    if (lookout.leave(kPoints * rows * depth * kLanes * items.group)) return;
    const std::size_t v_step = rows * depth + kLanes;
    float* const made = scratch;
    float* const m = made + (s.transformed() ? 0 : items.group * kPass * u_step);
    float* const v = m + kPoints * rows * items.group * kLanes;
    if (part != current) {
      for (std::size_t row = 0; row < rows; row += kRows) {
        const std::size_t count = std::min(kRows, rows - row);
        winograd_input<M>(s, data, first + row, count, v + row * depth, v_step);
      }
      current = part;
    }
    const std::size_t panel = items.first_panel(item), panels = items.panel_count(item);
    const float* const packed = data.packed + panel * depth * kTaps * kLanes;
    const float* const next = packed + panels * depth * kTaps * kLanes;
    for (std::size_t first_point = 0; first_point < kPoints; first_point += kPass) {
      const float* u = made;
      std::size_t u_panel = kPass * u_step;
      if (s.transformed()) {
        u_panel = kPoints * u_step;
        u = data.packed + panel * u_panel + first_point * u_step;
      } else {
        for (std::size_t p = 0; p < panels; ++p) {
          winograd_weight<M>(first_point / kSide, packed + p * depth * kTaps * kLanes, depth,
                             made + p * u_panel, u_step);
        }
      }
      for (std::size_t row = 0; row < rows; row += kRows) {
        const std::size_t count = std::min(kRows, rows - row);
        float* const m_row = m + row * items.group * kPoints * kLanes;
        for (std::size_t point = first_point; point < first_point + kPass; ++point, u += u_step) {
          // the weights that will be transformed next, spread over the points
          Ahead ahead{u + kAhead, u_panel};
          if (!s.transformed() && row == 0 && point * kTaps % kPoints < kTaps) {
            ahead = {next + point * kTaps / kPoints * depth * kLanes, depth * kTaps * kLanes};
          }
          gemm(count, v + point * v_step + row * depth, count * kLanes, u, u_panel, blocks, panels,
               m_row + point * count * kLanes, kPoints * count * kLanes, ahead);
        }
        u -= kPass * u_step;
      }
    }
    for (std::size_t row = 0; row < rows; row += kRows) {
      const std::size_t count = std::min(kRows, rows - row);
      const float* const m_row = m + row * items.group * kPoints * kLanes;
      for (std::size_t p = 0; p < panels; ++p) {
        winograd_output<M>(s, data, first + row, count, panel + p, m_row + p * kPoints * count * kLanes);
      }
    }
  }
}

}  // namespace pysdk::engine::PYSDK_ISA
