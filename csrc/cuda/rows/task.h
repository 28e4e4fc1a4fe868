// What the kernels of the device chain read. It lies in device memory and kernels get its address alone, so a
// captured graph does not depend on the request, its tensors' places or the number of its rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "chain/step.h"
#include "chain/step_table.h"

namespace pysdk::cuda {

struct Task {
  std::uint32_t batch;
  std::uint32_t groups;  // of four elements, per image; the last may be partial
  std::uint64_t image;   // elements of an image
  std::uint64_t output;  // elements of a network output of one image
  std::int32_t length;   // rows
  ClipKind clip;
  float clip_limit, clip_max;
  std::uint32_t rank;  // dynamic threshold: the lower order statistic,
  float fraction;      // and the way from it to the next
  float init_scale;
  bool guided;
  bool learned_variance;
  bool whole_groups;  // every group is full, so that tensors are read and written 16 bytes at a time

  // Tensors, null where the request has no use for them; shapes as in ChainBuffers and Request.
  const Row* rows;
  const std::uint64_t* seeds;
  const std::uint64_t* images;
  const float* guidance;
  const float* initial;
  const float* known;
  const std::uint8_t* keep;
  const float* noise;        // foreign, of the row at hand, instead of Philox
  const float* known_noise;  // likewise for the known region
  float* input;
  float* time;
  float* output_tensor;
  float* x;
  float* d1;
  float* d2;
  float* y;
  float* raw;        // dynamic threshold: r
  float* threshold;  // and each image's threshold

  // Snapshots of x and D after every `every` rows and after the last, in a ring; every = 0 for none.
  std::int32_t every, slots;
  float* ring_x;
  float* ring_denoised;
};

// Where the chain is; in device memory.
struct Place {
  std::int32_t position;  // rows done
  std::int32_t until;     // the loop stops here
};

// What graphs know the address of.
struct State {
  Task task;
  Place place;
};

// The same for the host, in pinned memory that the device sees.
struct Mailbox {
  volatile std::int32_t position;
  volatile std::int32_t stop;  // set by the host: end the loop early
};

constexpr std::int32_t kStopEvery = 16;  // rows between two looks at Mailbox::stop, each a trip over the bus

}  // namespace pysdk::cuda
