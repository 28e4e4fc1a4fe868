// What a chain is made for and started with, on whatever device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "chain/step.h"
#include "chain/step_table.h"

namespace pysdk {

struct ChainShape {
  std::int64_t batch = 16;
  std::int64_t channels = 1;
  std::int64_t height = 28;
  std::int64_t width = 28;
  std::int64_t out_channels = 1;
  bool guided = false;
  bool classifier = false;
  std::int64_t threads = 1;

  // Throws std::invalid_argument when a size is out of range, with all products known not to overflow
  // afterwards.
  void validate() const;
  std::size_t network_batch() const { return static_cast<std::size_t>(guided ? 2 * batch : batch); }
  std::size_t image() const { return static_cast<std::size_t>(channels * height * width); }
  std::size_t output() const { return static_cast<std::size_t>(out_channels * height * width); }
  // Bytes of the memory of a chain of so many rows, whatever it is begun with.
  std::size_t most_bytes(std::size_t rows) const;
  std::size_t elements() const { return static_cast<std::size_t>(batch) * image(); }
};

// Whether a row replaces the known region.
inline bool keeps_known(const Row& row) { return row.known != 0.0f || row.known_noise != 0.0f; }

// Everything one chain is started with.
struct Program {
  std::vector<Row> rows;
  ClipKind clip = ClipKind::kNone;
  float clip_limit = 1.0f;
  double clip_ratio = 0.995;
  float clip_max = std::numeric_limits<float>::infinity();
  bool learned_variance = false;
  float init_scale = 1.0f;
  std::vector<std::uint64_t> seeds;   // (batch,)
  std::vector<std::uint64_t> images;  // (batch,)
  std::vector<std::int64_t> labels;   // (batch,), or empty: null_label for every image
  std::int64_t null_label = -1;
  std::vector<float> guidance;          // (batch,) when guided, else empty
  std::vector<float> classifier_scale;  // (batch,) with a classifier, else empty
  std::vector<float> initial;           // (batch, C, H, W) instead of init_scale * z_0, or empty
  std::vector<float> known;        // (batch, C, H, W), the image that rows with known columns keep, or empty
  std::vector<std::uint8_t> keep;  // (batch, C, H, W), where they keep it
  std::function<void(std::int64_t draw, float* out)> noise;  // instead of Philox, fills (batch, C, H, W)
};

// Throws std::invalid_argument unless the program is one for such a chain.
void check_program(const ChainShape& shape, const Program& program);

// Throws std::invalid_argument when networks are attached that such a chain does not call.
void check_attached(const ChainShape& shape, bool conditional, bool classifier);

// Throws unless a chain of `length` rows with these networks can be advanced by `count` rows.
void check_advance(const ChainShape& shape, std::int64_t count, std::int64_t length, bool denoiser,
                   bool classifier);

}  // namespace pysdk
