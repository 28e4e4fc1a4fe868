// What a chain is asked for, on whatever device: a table, and what differs from image to image.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "chain/chain_shape.h"
#include "chain/step_table.h"

namespace pysdk {

struct Request {
  SharedTable table;
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

// Throws std::invalid_argument unless such a chain can do what is asked. Whoever makes a request sees to the
// lengths above.
void check_request(const ChainShape& shape, const Request& request);

// Throws std::invalid_argument when networks are attached that such a chain does not call.
void check_attached(const ChainShape& shape, bool conditional, bool classifier);

// Throws unless a chain of `length` rows with these networks can be advanced by `count` rows.
void check_advance(const ChainShape& shape, std::int64_t count, std::int64_t length, bool denoiser,
                   bool classifier);

}  // namespace pysdk
