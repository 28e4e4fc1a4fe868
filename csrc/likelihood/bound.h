// The variational bound of DDPM on the CPU: per row one forward diffusion, one network call and one
// reduction.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/aligned_array.h"
#include "base/workers.h"
#include "chain/cpu_chain.h"
#include "chain/denoiser.h"

// clang-format off
#define PYSDK_BOUND_COLUMNS(X) \
  X(t) X(signal) X(noise) X(p) X(q) X(from_x0) X(log_posterior) X(log_low) X(log_high) X(decoder)
// clang-format on

namespace pysdk {

// One term of the bound, at x_t = signal * x_0 + noise * z.
struct BoundRow {
#define PYSDK_FIELD(name) double name;
  PYSDK_BOUND_COLUMNS(PYSDK_FIELD)
#undef PYSDK_FIELD
};

constexpr std::array kBoundColumns{
#define PYSDK_NAME(name) #name,
    PYSDK_BOUND_COLUMNS(PYSDK_NAME)
#undef PYSDK_NAME
};

static_assert(sizeof(BoundRow) == kBoundColumns.size() * sizeof(double),
              "a BoundRow is one line of the table");

// Everything one bound is started with.
struct BoundRequest {
  std::vector<BoundRow> rows;
  bool learned_variance = false;
  double clip_limit = 0.0;                    // for the denoised estimate; infinity for none
  double value_low = -1.0, value_high = 1.0;  // what the levels 0 and 255 are
  std::vector<std::uint8_t> pixels;           // (batch, C, H, W)
  std::vector<std::uint64_t> seeds, images;   // (batch,)
  std::vector<std::int64_t> labels;           // (batch,), or empty
};

class VariationalBound {
 public:
  explicit VariationalBound(const ChainShape& shape);
  // Bytes of the memory of a bound of so many rows, whatever it is begun with.
  static std::size_t most_bytes(const ChainShape& shape, std::size_t rows);

  const ChainShape& shape() const { return shape_; }
  const std::shared_ptr<ChainBuffers>& buffers() const { return buffers_; }
  std::int64_t position() const { return position_; }
  std::int64_t length() const { return length_; }
  // The methods below throw std::runtime_error when another one is running, on whatever thread.
  void attach(std::shared_ptr<Denoiser> denoiser);
  // Throws std::invalid_argument, and leaves the old request as it was, when this one does not fit.
  void begin(BoundRequest request);
  // Runs up to `count` rows and returns the rows done so far. When the denoiser or the watch throws, the next
  // call runs the row again.
  std::int64_t advance(std::int64_t count, Watch& watch);
  // (batch, rows), summed over the elements: nats, and squared errors of the estimate of x_0.
  std::vector<double> terms();
  std::vector<double> errors();

 private:
  void check(const BoundRequest& request) const;
  template <class Work>
  void each_image(Watch& watch, const Work& work);
  void diffuse(const BoundRow& row, std::size_t image);
  void reduce(const BoundRow& row, std::size_t index, std::size_t image);

  const ChainShape shape_;
  const std::shared_ptr<ChainBuffers> buffers_;  // x holds x_0
  Workers workers_;
  std::shared_ptr<Denoiser> denoiser_;
  BoundRequest request_;
  std::array<double, 256> values_{};  // what each level is
  std::vector<double> terms_, errors_;
  std::atomic<std::int64_t> position_{0}, length_{0};
  std::atomic<bool> busy_{false};
};

}  // namespace pysdk
