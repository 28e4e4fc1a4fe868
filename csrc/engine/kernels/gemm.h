// C = A B for a block of up to 24 rows: nearly all multiplications happen here.
//
// A is kept as [K/16][rows][16]: the address of a row is then a constant in the instruction, and a result of
// this very function, [N/16][rows][16], can be the next A. B is packed as panels of 16 columns,
// [N/16][K][16]. Every element of C is one chain of fused multiply-adds over k = 0, 1, ... in a register,
// whatever the instruction set, the number of rows or the neighbours: this order is what makes all builds and
// all batches give the same bits.
#pragma once

#include <utility>

#include "engine/kernels.h"
#include "engine/kernels/simd.h"

namespace pysdk::engine::PYSDK_ISA {

// How far ahead B is fetched, in floats: 8 KiB, two pages, past which the hardware does not look.
constexpr std::size_t kAhead = 2048;

// What is fetched into the cache meanwhile: as much as is read from B, `step` floats apart for each panel.
struct Ahead {
  const float* from;
  std::size_t step;
};

// R rows, P panels: R P accumulators.
template <int R, int P>
inline void tile(const float* a, std::size_t a_step, const float* b, std::size_t b_step, std::size_t k_blocks,
                 float* c, std::size_t c_step, Ahead ahead) {
  Floats sum[P][R];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r) sum[p][r] = zero();
  }
  for (std::size_t block = 0; block < k_blocks; ++block) {
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kLanes; ++k) {
      Floats column[P];
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        column[p] = load(b + p * b_step + k * kLanes);
        __builtin_prefetch(ahead.from + p * ahead.step + k * kLanes);
        pin(column[p]);
      }
#pragma GCC unroll 24
      for (int r = 0; r < R; ++r) {
        const Floats scalar = all(a[r * kLanes + k]);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sum[p][r] = fma(scalar, column[p], sum[p][r]);
      }
    }
    a += a_step;
    b += kLanes * kLanes;
    ahead.from += kLanes * kLanes;
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r) store(c + p * c_step + r * kLanes, sum[p][r]);
  }
}

using Tile = void (*)(const float*, std::size_t, const float*, std::size_t, std::size_t, float*, std::size_t,
                      Ahead);

template <int P, int... R>
constexpr Tile pick(std::size_t rows, std::integer_sequence<int, R...>) {
  constexpr Tile kTiles[] = {tile<R + 1, P>...};
  return kTiles[rows - 1];
}

#if defined(__AVX512F__)
constexpr std::size_t kTileRows = 24;  // 24 of 32 registers
#else
constexpr std::size_t kTileRows = 6;  // 12 of 16 registers
#endif

// P panels at a time for up to kTileRows / P rows: few rows alone would wait for the multiply-adds' latency.
template <int P>
inline std::size_t panels_at_once(std::size_t rows, std::size_t a_step, const float* a, const float* b,
                                  std::size_t b_step, std::size_t k_blocks, std::size_t panels, float* c,
                                  std::size_t c_step, Ahead ahead) {
  const Tile run = pick<P>(rows, std::make_integer_sequence<int, kTileRows / P>());
  std::size_t panel = 0;
  for (; panel + P <= panels; panel += P) {
    run(a, a_step, b + panel * b_step, b_step, k_blocks, c + panel * c_step, c_step,
        {ahead.from + panel * ahead.step, ahead.step});
  }
  return panel;
}

// rows <= kRows. A: a_step floats from one block of 16 k to the next; B: b_step from panel to panel; C
// likewise.
inline void gemm(std::size_t rows, const float* a, std::size_t a_step, const float* b, std::size_t b_step,
                 std::size_t k_blocks, std::size_t panels, float* c, std::size_t c_step, Ahead ahead) {
  const std::size_t pieces = (rows + kTileRows - 1) / kTileRows;
  for (std::size_t panel = 0; panel < panels;) {
    std::size_t done = 1;
    for (std::size_t piece = 0, row = 0; piece < pieces; ++piece) {
      const std::size_t count = (rows - row + pieces - piece - 1) / (pieces - piece);
      const float* a_row = a + row * kLanes;
      const float* b_panel = b + panel * b_step;
      const Ahead ahead_panel{ahead.from + panel * ahead.step, ahead.step};
      float* c_row = c + panel * c_step + row * kLanes;
      const std::size_t left = panels - panel;
      if (pieces == 1 && count <= kTileRows / 4 && left >= 4) {
        done = panels_at_once<4>(count, a_step, a_row, b_panel, b_step, k_blocks, left, c_row, c_step,
                                 ahead_panel);
      } else if (pieces == 1 && count <= kTileRows / 2 && left >= 2) {
        done = panels_at_once<2>(count, a_step, a_row, b_panel, b_step, k_blocks, left, c_row, c_step,
                                 ahead_panel);
      } else {
        pick<1>(count, std::make_integer_sequence<int, kTileRows>())(a_row, a_step, b_panel, b_step, k_blocks,
                                                                     c_row, c_step, ahead_panel);
      }
      row += count;
    }
    panel += done;
  }
}

// B itself is fetched ahead.
inline void gemm(std::size_t rows, const float* a, std::size_t a_step, const float* b, std::size_t b_step,
                 std::size_t k_blocks, std::size_t panels, float* c, std::size_t c_step) {
  gemm(rows, a, a_step, b, b_step, k_blocks, panels, c, c_step, {b + kAhead, b_step});
}

}  // namespace pysdk::engine::PYSDK_ISA
