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

#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"

namespace pysdk::engine::PYSDK_ISA {

template <int M>
struct Filter;

template <>
struct Filter<2> {
  static constexpr double kG[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

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
  static constexpr double kG[6][3] = {{1 / (kA2 * kB2), 0, 0},         {1 / kNa, kA / kNa, kA2 / kNa},
                                      {1 / kNa, -kA / kNa, kA2 / kNa}, {1 / kNb, kB / kNb, kB2 / kNb},
                                      {1 / kNb, -kB / kNb, kB2 / kNb}, {0, 0, 1}};

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

// Weights OIHW -> [panel][point][input channel][16], point = (m+2) row + column; in double, rounded once.
template <int M>
void winograd_pack(const ConvShape& s, const float* weight, std::size_t first_panel, std::size_t last_panel,
                   float* packed) {
  constexpr int kSide = M + 2;
  constexpr int kPoints = kSide * kSide;
  const std::size_t depth = s.in_blocks(0) * kLanes;
  for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
    for (std::size_t in = 0; in < depth; ++in) {
      double g[9][kLanes] = {};
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::size_t out = panel * kLanes + lane;
        if (out >= s.out_channels || in >= s.in_channels[0]) continue;
        const float* taps = weight + (out * s.in_channels[0] + in) * 9;
        for (int tap = 0; tap < 9; ++tap) g[tap][lane] = taps[tap];
      }
      double rows[kSide][3][kLanes];
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < 3; ++j) {
          for (std::size_t lane = 0; lane < kLanes; ++lane) {
            rows[i][j][lane] = Filter<M>::kG[i][0] * g[j][lane] + Filter<M>::kG[i][1] * g[3 + j][lane] +
                               Filter<M>::kG[i][2] * g[6 + j][lane];
          }
        }
      }
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          float* out = packed + ((panel * kPoints + i * kSide + j) * depth + in) * kLanes;
          for (std::size_t lane = 0; lane < kLanes; ++lane) {
            out[lane] = static_cast<float>(rows[i][0][lane] * Filter<M>::kG[j][0] +
                                           rows[i][1][lane] * Filter<M>::kG[j][1] +
                                           rows[i][2][lane] * Filter<M>::kG[j][2]);
          }
        }
      }
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

// A worker transforms the input of a part once for all the panels that come to it.
template <int M>
void winograd(const ConvShape& s, const ConvData& data, std::size_t begin, std::size_t end, float* scratch) {
  constexpr std::size_t kPoints = (M + 2) * (M + 2);
  const Items items(s.rows(data.batch), s.panels());
  const std::size_t blocks = s.in_blocks(0), depth = blocks * kLanes;
  std::size_t current = items.parts;  // none
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t part = items.part(item);
    const std::size_t first = items.first_row(part), rows = items.first_row(part + 1) - first;
    const std::size_t v_step = rows * depth + kLanes;  // the extra line keeps the points out of one cache set
    float* const v = scratch;
    float* const m = scratch + kPoints * v_step;
    if (part != current) {
      winograd_input<M>(s, data, first, rows, v, v_step);
      current = part;
    }
    const std::size_t panel = items.first_panel(item), panels = items.panel_count(item);
    const std::size_t m_step = kPoints * rows * kLanes;  // from panel to panel
    for (std::size_t point = 0; point < kPoints; ++point) {
      gemm(rows, v + point * v_step, rows * kLanes, data.packed + (panel * kPoints + point) * depth * kLanes,
           kPoints * depth * kLanes, blocks, panels, m + point * rows * kLanes, m_step);
    }
    for (std::size_t p = 0; p < panels; ++p)
      winograd_output<M>(s, data, first, rows, panel + p, m + p * m_step);
  }
}

}  // namespace pysdk::engine::PYSDK_ISA
