// Four neighbouring elements of an image, which share one Philox counter: what one thread works on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "chain/step.h"
#include "cuda/rows/task.h"
#include "noise/normal.h"

namespace pysdk::cuda {

struct alignas(16) Quad {
  float v[4];
};

// Says which elements a quad holds, and of which image.
struct Group {
  std::uint32_t image;
  std::uint32_t index;  // in the image, and the counter of its noise
  std::uint64_t first;  // element of the image
  std::int32_t count;   // 4, or fewer at the image's end
  bool whole;           // 16-byte access
};

PYSDK_INLINE Group group_at(const Task& task, std::uint32_t number) {
  const std::uint32_t image = number / task.groups;
  const std::uint32_t index = number - image * task.groups;
  const std::uint64_t first = std::uint64_t{index} * 4;
  const std::uint64_t left = task.image - first;
  return {image, index, first, left < 4 ? static_cast<std::int32_t>(left) : 4, task.whole_groups};
}

PYSDK_INLINE Quad load(const float* from, const Group& group) {
  if (group.whole) return *reinterpret_cast<const Quad*>(from);
  Quad q{};
  for (std::int32_t i = 0; i < group.count; ++i) q.v[i] = from[i];
  return q;
}

PYSDK_INLINE void store(float* to, const Quad& q, const Group& group) {
  if (group.whole) {
    *reinterpret_cast<Quad*>(to) = q;
  } else {
    for (std::int32_t i = 0; i < group.count; ++i) to[i] = q.v[i];
  }
}

// coefficient * value terms summed left to right; see BlockSum of the CPU kernels.
struct QuadSum {
  Quad total{};
  bool empty = true;

  PYSDK_METHOD void add(float coefficient, const Quad& value) {
    if (coefficient == 0.0f) return;
    for (int i = 0; i < 4; ++i) {
      total.v[i] =
          empty ? first_term(coefficient, value.v[i]) : next_term(total.v[i], coefficient, value.v[i]);
    }
    empty = false;
  }

  // The same, reading the tensor only if it counts.
  PYSDK_METHOD void add(float coefficient, const float* from, const Group& group) {
    if (coefficient != 0.0f) add(coefficient, load(from, group));
  }
};

PYSDK_INLINE Quad scaled(float coefficient, const Quad& value) {
  QuadSum sum;
  sum.add(coefficient, value);
  return sum.total;
}

PYSDK_INLINE Quad normals(NoiseKey key, std::uint32_t index) {
  const Words words = noise_words(key, index);
  const NormalPair a = box_muller(words.w0, words.w1);
  const NormalPair b = box_muller(words.w2, words.w3);
  return {{a.first, a.second, b.first, b.second}};
}

}  // namespace pysdk::cuda
