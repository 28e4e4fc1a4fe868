// softmax(scale Q K^T) V per head. The scores of 24 queries are made as a matrix product whose result is laid
// out as the next product wants its left side.
#pragma once

#include <limits>

#include "engine/kernels/gemm.h"
#include "engine/kernels/math.h"

namespace pysdk::engine::PYSDK_ISA {

// K -> [16 keys][channel][16], V -> [16 channels][key][16]; what is beyond the last channel or key is zero.
inline void pack_head(const AttentionShape& s, const float* k, const float* v, float* keys, float* values) {
  const std::size_t depth = s.depth_blocks() * kLanes, all_keys = s.key_blocks() * kLanes;
  std::fill_n(keys, all_keys * depth, 0.0f);
  std::fill_n(values, all_keys * depth, 0.0f);
  for (std::size_t token = 0; token < s.tokens; ++token) {
    float* key = keys + token / kLanes * depth * kLanes + token % kLanes;
    for (std::size_t c = 0; c < s.head_channels; ++c) key[c * kLanes] = k[token * s.k_step + c];
    for (std::size_t c = 0; c < s.head_channels; c += kLanes) {
      std::copy_n(v + token * s.v_step + c, std::min(kLanes, s.head_channels - c),
                  values + (c / kLanes * all_keys + token) * kLanes);
    }
  }
}

// Rows of [key/16][rows][16] -> exp(scale (x - max)), not divided by their sums, which are returned inverted.
inline void exponentials(const AttentionShape& s, float* scores, std::size_t rows, float* inverse) {
  const std::size_t tail = s.tokens % kLanes, blocks = s.key_blocks();
  const Floats scale = all(s.scale);
  for (std::size_t row = 0; row < rows; ++row) {
    float* const x = scores + row * kLanes;
    float* const last = x + (blocks - 1) * rows * kLanes;
    if (tail != 0) std::fill(last + tail, last + kLanes, -std::numeric_limits<float>::infinity());
    Floats most = mul(load(x), scale);
    for (std::size_t block = 1; block < blocks; ++block)
      most = max(most, mul(load(x + block * rows * kLanes), scale));
    float lanes[kLanes];
    store(lanes, most);
    const Floats top = all(*std::max_element(lanes, lanes + kLanes));
    Floats sum = zero();
    for (std::size_t block = 0; block < blocks; ++block) {
      float* const at = x + block * rows * kLanes;
      Floats e = exp(sub(mul(load(at), scale), top));
      store(at, e);
      if (block + 1 == blocks && tail != 0) {
        std::fill(at + tail, at + kLanes, 0.0f);
        e = load(at);
      }
      sum = add(sum, e);
    }
    store(lanes, sum);
    float total = 0;
    for (const float lane : lanes) total += lane;
    inverse[row] = 1 / total;
  }
}

inline void attention(const AttentionShape& s, const AttentionData& data, std::size_t begin, std::size_t end,
                      float* scratch, Lookout& lookout) {
  const std::size_t depth_blocks = s.depth_blocks(), depth = depth_blocks * kLanes;
  const std::size_t key_blocks = s.key_blocks(), all_keys = key_blocks * kLanes;
  float* const keys = scratch;
  float* const values = keys + all_keys * depth;
  float* const queries = values + all_keys * depth;
  float* const scores = queries + kRows * depth;
  float* const result = scores + kRows * all_keys;
  std::size_t current = static_cast<std::size_t>(-1);
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t pair = item / s.parts(), part = item % s.parts();
    const std::size_t image = pair / s.heads, head = pair % s.heads;
    const std::size_t first = s.tokens * part / s.parts(), rows = s.tokens * (part + 1) / s.parts() - first;
    if (lookout.leave(2 * rows * depth * all_keys)) return;
    if (pair != current) {
      pack_head(s, data.k + image * s.tokens * s.k_step + head * s.k_head,
                data.v + image * s.tokens * s.v_step + head * s.v_head, keys, values);
      current = pair;
    }
    std::fill_n(queries, rows * depth, 0.0f);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* q = data.q + (image * s.tokens + first + row) * s.q_step + head * s.q_head;
      for (std::size_t c = 0; c < s.head_channels; c += kLanes) {
        std::copy_n(q + c, std::min(kLanes, s.head_channels - c),
                    queries + (c / kLanes * rows + row) * kLanes);
      }
    }
    gemm(rows, queries, rows * kLanes, keys, depth * kLanes, depth_blocks, key_blocks, scores, rows * kLanes);
    float inverse[kRows];
    exponentials(s, scores, rows, inverse);
    gemm(rows, scores, rows * kLanes, values, all_keys * kLanes, key_blocks, depth_blocks, result,
         rows * kLanes);
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t at = (image * s.tokens + first + row) * s.out_step + head * s.head_channels;
      for (std::size_t c = 0; c < s.head_channels; ++c) {
        const float value = result[(c / kLanes * rows + row) * kLanes + c % kLanes] * inverse[row];
        data.y[at + c] = data.residual == nullptr ? value : value + data.residual[at + c];
      }
    }
  }
}

}  // namespace pysdk::engine::PYSDK_ISA
