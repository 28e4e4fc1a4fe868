// The compute of the CPU engine: kernels/kernels.cpp is compiled once per instruction set, dispatch.cpp picks
// one. All sets give the same bits.
//
// Maps are NHWC with the channels of a pixel padded with zeros to blocks of 16; tokens and vectors are maps,
// too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/watch.h"

namespace pysdk::engine {

constexpr std::size_t kLanes = 16;  // channels of a block
constexpr std::size_t kRows = 24;   // rows of the result computed at a time: pixels, tiles or tokens

constexpr std::size_t blocks_of(std::size_t channels) { return (channels + kLanes - 1) / kLanes; }
constexpr std::size_t padded(std::size_t channels) { return blocks_of(channels) * kLanes; }

// The rows of a result in parts of about equal size, and its panels of 16 channels in groups: few rows take
// several panels at a time, so that independent sums hide the latency of a multiply-add. An item of work is
// one group for one part.
struct Items {
  std::size_t rows, parts, panels, group, groups;

  Items(std::size_t all_rows, std::size_t all_panels, std::size_t most_rows)
      : rows(all_rows),
        parts((all_rows + most_rows - 1) / most_rows),
        panels(all_panels),
        group(all_rows < 2   ? 4
              : all_rows < 4 ? 2
                             : 1),
        groups((all_panels + group - 1) / group) {}

  std::size_t count() const { return parts * groups; }
  std::size_t part_rows() const { return (rows + parts - 1) / parts; }  // at most
  std::size_t first_row(std::size_t part) const { return rows * part / parts; }
  std::size_t part(std::size_t item) const { return item / groups; }
  std::size_t first_panel(std::size_t item) const { return item % groups * group; }
  std::size_t panel_count(std::size_t item) const { return std::min(group, panels - first_panel(item)); }
};

constexpr std::size_t kMaxInputs = 2;

// How many of the (tile + 2) lines of Winograd's points a worker transforms weights for at a time: as many as
// stay in the cache beside the input.
constexpr std::size_t lines_at_once(std::size_t tile) { return tile == 4 ? 3 : tile + 2; }

// A convolution; in Winograd's form a row of the work is a tile, else a pixel of the result.
struct ConvShape {
  std::size_t inputs;  // 1, or 2 read as one with the channels behind each other
  std::size_t in_channels[kMaxInputs];
  std::size_t in_height, in_width;  // before upsampling
  std::size_t upsample;             // log2 of the nearest-neighbour factor
  std::size_t out_channels, out_height, out_width;
  std::size_t kernel_height, kernel_width, stride;
  std::ptrdiff_t pad_top, pad_left;
  std::size_t tile;  // 0: direct, else pixels of a tile's side
  std::size_t tiles_high, tiles_wide;

  std::size_t panels() const { return blocks_of(out_channels); }
  std::size_t in_blocks(std::size_t input) const { return blocks_of(in_channels[input]); }
  std::size_t rows(std::size_t batch) const {
    return batch * (tile == 0 ? out_height * out_width : tiles_high * tiles_wide);
  }
  std::size_t taps() const { return kernel_height * kernel_width; }
  std::size_t points() const { return (tile + 2) * (tile + 2); }
  // Few channels are packed without gaps between taps: the three of an image would be padded fivefold.
  bool dense() const { return inputs == 1 && in_channels[0] < kLanes && taps() > 1; }
  // Blocks of 16 along the summed dimension of one matrix product.
  std::size_t depth_blocks() const {
    if (tile != 0) return in_blocks(0);
    if (dense()) return blocks_of(taps() * in_channels[0]);
    std::size_t blocks = 0;
    for (std::size_t input = 0; input < inputs; ++input) blocks += in_blocks(input);
    return taps() * blocks;
  }
  // Winograd's weights stay transformed where an image has many tiles to use them. Elsewhere a worker
  // transforms them for every part of the rows: a little more to compute, a quarter as much memory to hold
  // and to read.
  bool transformed() const { return tile != 0 && tiles_high * tiles_wide >= 2 * kRows; }
  std::size_t packed_floats() const {
    if (transformed()) return panels() * points() * (depth_blocks() * kLanes + 1) * kLanes;
    return panels() * kLanes * kLanes * depth_blocks() * (tile == 0 ? 1 : taps());
  }
  // Per worker, to pack: the weights of one panel, before they are transformed.
  std::size_t packing_floats() const { return transformed() ? depth_blocks() * kLanes * taps() * kLanes : 0; }
  Items items(std::size_t batch) const {
    return Items(rows(batch), panels(), tile == 0 || transformed() ? kRows : 2 * kRows);
  }
  double multiplications(std::size_t batch) const {
    return static_cast<double>(rows(batch)) * static_cast<double>(tile == 0 ? 1 : points()) *
           static_cast<double>(depth_blocks() * kLanes) * static_cast<double>(panels() * kLanes);
  }
  // Per worker: transformed weights, products, input.
  std::size_t scratch_floats(std::size_t batch) const {
    const Items all = items(batch);
    const std::size_t depth = depth_blocks() * kLanes, part = all.part_rows();
    const std::size_t products = std::max(part * all.group, kRows) * kLanes;
    if (tile == 0) return part * depth + products;
    const std::size_t weights =
        transformed() ? 0 : lines_at_once(tile) * (tile + 2) * all.group * (depth + 1) * kLanes;
    return weights + points() * (products + part * depth + kLanes);
  }
};

struct ConvData {
  const float* x[kMaxInputs];
  const float* packed;
  const float* zeros;     // a pixel of zeros
  const float* bias;      // per channel, with the time embedding
  std::size_t bias_step;  // from image to image
  const float* residual;  // null, or a map like y that is added
  float* y;
  std::size_t batch;
};

struct NormShape {
  std::size_t inputs;  // 1, or 2 as in ConvShape
  std::size_t in_channels[kMaxInputs];
  std::size_t pixels, groups;
  float epsilon;
  bool silu;

  std::size_t channels() const { return in_channels[0] + (inputs == 2 ? in_channels[1] : 0); }
  // Pixels are summed in slabs of a fixed size: the order of the sum does not depend on who sums.
  static constexpr std::size_t kSlab = 256;
  std::size_t slabs() const { return (pixels + kSlab - 1) / kSlab; }
  // Doubles of a slab in NormData::sums: per input the sums of its padded channels, then their squares.
  std::size_t sums_step() const {
    return 2 * (padded(in_channels[0]) + (inputs == 2 ? padded(in_channels[1]) : 0));
  }
};

struct NormData {
  const float* x[kMaxInputs];
  const float* gamma;
  const float* beta;
  const float* scale;  // null, or per channel: y (1 + scale) + shift
  const float* shift;
  std::size_t scale_step, shift_step;  // from image to image
  double* sums;                        // [image][slab][sums_step()]
  float* y;
};

struct AttentionShape {
  std::size_t tokens, heads, head_channels;
  float scale;
  std::size_t q_step, k_step, v_step, out_step;  // floats from token to token
  std::size_t q_head, k_head, v_head;            // floats from head to head

  std::size_t depth_blocks() const { return blocks_of(head_channels); }
  std::size_t key_blocks() const { return blocks_of(tokens); }
  std::size_t parts() const { return (tokens + kRows - 1) / kRows; }  // into which the queries fall
  // For one image: scores, then their products with the values.
  double multiplications() const {
    return 2.0 * static_cast<double>(heads) * static_cast<double>(tokens) *
           static_cast<double>(key_blocks() * kLanes) * static_cast<double>(depth_blocks() * kLanes);
  }
  std::size_t scratch_floats() const {
    const std::size_t square = kLanes * kLanes;
    return 2 * key_blocks() * depth_blocks() * square + kRows * kLanes * (2 * depth_blocks() + key_blocks());
  }
};

struct AttentionData {
  const float *q, *k, *v;  // the first channel of the first head of the first image
  const float* residual;   // null, or a map like y that is added
  float* y;
};

// Work on the items [begin, end), which ends early when the lookout says so; it and scratch are the worker's
// own.
struct Kernels {
  void (*conv_pack)(const ConvShape&, const float* weight, std::size_t first_panel, std::size_t last_panel,
                    float* packed, float* scratch);
  void (*conv)(const ConvShape&, const ConvData&, std::size_t begin, std::size_t end, float* scratch,
               Lookout&);
  // items: (image, slab)
  void (*norm_sums)(const NormShape&, const NormData&, std::size_t begin, std::size_t end, Lookout&);
  void (*norm_apply)(const NormShape&, const NormData&, std::size_t begin, std::size_t end, float* scratch,
                     Lookout&);
  // items: (image, head, part of the queries)
  void (*attention)(const AttentionShape&, const AttentionData&, std::size_t begin, std::size_t end,
                    float* scratch, Lookout&);
  void (*silu)(const float* x, std::size_t count, float* y);
};

// The kernels of this process: the best the CPU has, or what the environment variable PYSDK_ISA names.
const Kernels& kernels();

}  // namespace pysdk::engine
