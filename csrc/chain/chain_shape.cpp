#include "chain/chain_shape.h"

#include <stdexcept>
#include <string>

#include "chain/step_table.h"

namespace pysdk {

namespace {

constexpr std::int64_t kMaxDimension = 1 << 20;
constexpr std::int64_t kMaxThreads = 256;
constexpr std::int64_t kMaxElements = std::int64_t{1}
                                      << 33;  // of one buffer: 32 GiB; also keeps element/4 in 32 bits

void require_range(const char* name, std::int64_t value, std::int64_t high) {
  if (value < 1 || value > high) {
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                "; it must be between 1 and " + std::to_string(high));
  }
}

}  // namespace

void ChainShape::validate() const {
  require_range("batch", batch, kMaxDimension);
  require_range("channels", channels, kMaxDimension);
  require_range("height", height, kMaxDimension);
  require_range("width", width, kMaxDimension);
  require_range("threads", threads, kMaxThreads);
  if (out_channels != channels && out_channels != 2 * channels) {
    throw std::invalid_argument("out_channels is " + std::to_string(out_channels) + "; for " +
                                std::to_string(channels) +
                                " channels it must be the same, or twice that with learned " + "variance");
  }
  std::int64_t total = guided ? 2 * batch : batch;
  for (const std::int64_t factor : {out_channels, height, width}) {  // each step stays below 2^33 * 2^21
    total *= factor;
    if (total > kMaxElements) {
      throw std::invalid_argument(
          "the network output would have more than 2^33 elements; use a smaller batch or shape");
    }
  }
}

std::size_t ChainShape::most_bytes(std::size_t rows) const {
  // x, two estimates, a saved sample, foreign noise of both kinds, initial and known
  const std::size_t arrays = 8 + (classifier ? 1 : 0);
  const std::size_t threshold = 2 * image() * static_cast<std::size_t>(threads);
  const std::size_t floats = network_batch() * (image() + output()) + arrays * elements() + threshold;
  const std::size_t keep = elements();
  const std::size_t per_image = 4 * sizeof(std::uint64_t);  // seed, index, label, scales
  return floats * sizeof(float) + keep + network_batch() * per_image + rows * sizeof(Row);
}

}  // namespace pysdk
