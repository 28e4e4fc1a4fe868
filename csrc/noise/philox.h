// Philox4x32-10, the counter-based generator of Salmon et al. 2011 (Parallel random numbers: as easy as 1, 2,
// 3).
#pragma once

#include <cstdint>

#include "noise/float32.h"

namespace pysdk {

// The draw word of a counter. Row k of a chain uses kFirstRow + k. Other streams start from kReserved up,
// kMaxRows apart, so that each has a draw for every row.
enum Draw : std::uint32_t {
  kInitial = 0,
  kFirstRow = 1,
  kMaxRows = 1u << 24,
  kReserved = 0x80000000u,
  kKnown = kReserved,      // + k: what noises the known region in row k (inpainting)
  kForward = 0xF0000000u,  // + t: x_t of an image in the variational bound, t below kForwardDraws
};

constexpr std::uint32_t kForwardDraws = 1u << 24;

struct Words {
  std::uint32_t w0, w1, w2, w3;
};

PYSDK_INLINE Words philox(Words counter, std::uint64_t seed) {
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  Words c = counter;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c.w0;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c.w2;
    c = Words{static_cast<std::uint32_t>(b >> 32) ^ c.w1 ^ k0, static_cast<std::uint32_t>(b),
              static_cast<std::uint32_t>(a >> 32) ^ c.w3 ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Which noise: element 4i + j of draw `draw` of image `image` comes from word j of counter (i, draw, image).
struct NoiseKey {
  std::uint64_t seed;
  std::uint64_t image;
  std::uint32_t draw;
};

PYSDK_INLINE Words noise_words(NoiseKey key, std::uint32_t index) {
  const Words counter{index, key.draw, static_cast<std::uint32_t>(key.image),
                      static_cast<std::uint32_t>(key.image >> 32)};
  return philox(counter, key.seed);
}

}  // namespace pysdk
