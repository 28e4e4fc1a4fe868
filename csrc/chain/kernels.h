// The compute of a row on the CPU: kernels.cpp is compiled once per instruction set, dispatch.cpp picks one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "chain/step.h"
#include "chain/step_table.h"
#include "noise/philox.h"

namespace pysdk {

// Elements done at a time: six arrays of this size stay in a 32 KiB L1 cache. A multiple of kNormalLanes.
constexpr std::size_t kBlock = 1024;

// One image in one row. Pointers are to the image's first element; null where the table has no use for the
// tensor.
struct RowTask {
  Row row;
  float next_c_in;  // c_in of the next row
  ClipKind clip;
  float clip_limit;  // of kClamp
  float threshold;   // of kDynamic, this image
  bool learned_variance;
  float guidance;  // w, used when f_uncond is set
  NoiseKey key;
  const float* f;         // network output, the conditional half when guided
  const float* f_uncond;  // guided: the other half
  const float* v;         // learned variance: the second half of the channels of f
  const float* gradient;  // classifier guidance in this row: d log p(label | x) / dx
  float classifier_scale;
  const float* noise;        // foreign noise instead of Philox
  const float* raw;          // r, when it was needed before (kDynamic)
  const float* known;        // in a row that keeps the known region: the image it is in
  const std::uint8_t* keep;  // and where it lies
  NoiseKey known_key;        // and its noise,
  const float* known_noise;  // or foreign noise instead
  float* x;
  float* d1;
  float* d2;
  float* y;
  float* input;  // the network's next input; null after the last row
  float* input_uncond;
};

struct Kernels {
  // out[i] = element i of the draw.
  void (*fill_normal)(NoiseKey key, std::size_t count, float* out);
  // out = c * in; zeros for c = 0.
  void (*scale)(const float* in, float c, std::size_t count, float* out);
  // r of elements first .. first + count - 1, count <= kBlock.
  void (*estimate)(const RowTask& task, std::size_t first, std::size_t count, float* r);
  // The whole row for elements first .. first + count - 1, count <= kBlock, first a multiple of kBlock.
  void (*update)(const RowTask& task, std::size_t first, std::size_t count);
  // out = e^in, as in learned variance.
  void (*exp)(const float* in, std::size_t count, float* out);
};

// The kernels of this process: the best the CPU has, or what the environment variable PYSDK_ISA names.
const Kernels& kernels();

}  // namespace pysdk
