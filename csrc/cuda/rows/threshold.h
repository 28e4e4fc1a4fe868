// An image's dynamic threshold by radix selection: the exact order statistics that the CPU finds by
// nth_element. One block of threads works on one image. Block::each(f) runs f(thread, threads) on every
// thread and is a barrier; Block::add and Block::least are atomic.
#pragma once

#include "cuda/rows/row.h"

namespace pysdk::cuda {

struct Selection {  // shared by the block
  std::uint32_t histogram[256];
  std::uint32_t prefix;  // bits of the answer found so far
  std::uint32_t rank;    // the place of the answer among the values that begin with them
  std::uint32_t equal;   // how many such values there are
  std::uint32_t above;   // the least value over the answer
  std::uint32_t has_nan;
};

PYSDK_INLINE std::uint32_t magnitude(float v) { return f32::bits(v) & 0x7fffffffu; }

// |r| as an integer is ordered as |r| is; its bytes are found from the highest to the lowest.
template <typename Block>
PYSDK_INLINE void select_byte(Block& block, Selection& s, const float* raw, std::uint64_t size, int shift) {
  const std::uint32_t found = shift == 24 ? 0u : ~0u << (shift + 8);
  block.each([&](std::uint32_t thread, std::uint32_t threads) {
    for (std::uint32_t i = thread; i < 256; i += threads) s.histogram[i] = 0;
  });
  block.each([&](std::uint32_t thread, std::uint32_t threads) {
    for (std::uint64_t i = thread; i < size; i += threads) {
      const std::uint32_t bits = magnitude(raw[i]);
      if ((bits & found) == s.prefix) block.add(s.histogram[(bits >> shift) & 255u], 1u);
    }
  });
  block.each([&](std::uint32_t thread, std::uint32_t) {
    if (thread != 0) return;
    std::uint32_t byte = 0;
    while (s.rank >= s.histogram[byte]) s.rank -= s.histogram[byte++];
    s.prefix |= byte << shift;
    s.equal = s.histogram[byte];
  });
}

// Leaves r of the image in task.raw and its threshold in task.threshold.
template <typename Block>
PYSDK_INLINE void select_threshold(Block& block, Selection& s, const Task& task, std::uint32_t position,
                                   std::uint32_t image) {
  const Row& row = task.rows[position];
  if (row.skip != 0.0f) return;
  float* raw = task.raw + image * task.image;
  block.each([&](std::uint32_t thread, std::uint32_t threads) {
    if (thread == 0) s.prefix = 0, s.rank = task.rank, s.above = ~0u, s.has_nan = 0;
    for (std::uint64_t i = thread; i < task.groups; i += threads) {
      const Group group = group_at(task, image * task.groups + static_cast<std::uint32_t>(i));
      const Quad x = load(task.x + image * task.image + group.first, group);
      store(raw + group.first, estimate_group(task, row, group, x), group);
    }
  });
  for (int shift = 24; shift >= 0; shift -= 8) select_byte(block, s, raw, task.image, shift);
  block.each([&](std::uint32_t thread, std::uint32_t threads) {
    for (std::uint64_t i = thread; i < task.image; i += threads) {
      const std::uint32_t bits = magnitude(raw[i]);
      if (bits > s.prefix) block.least(s.above, bits);
      if (bits > 0x7f800000u) block.add(s.has_nan, 1u);
    }
  });
  block.each([&](std::uint32_t thread, std::uint32_t) {
    if (thread != 0) return;
    const float low = f32::from_bits(s.prefix);
    const bool repeated =
        s.rank + 1 < s.equal || s.above == ~0u;  // the next order statistic is the same value
    const float high = repeated ? low : f32::from_bits(s.above);
    task.threshold[image] = s.has_nan != 0 ? f32::from_bits(0x7fc00000u)
                                           : dynamic_threshold(low, high, task.fraction, task.clip_max);
  });
}

}  // namespace pysdk::cuda
