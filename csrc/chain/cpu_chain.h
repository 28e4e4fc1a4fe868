// The reverse chain on the CPU: per row one call of the denoiser and one fused, block-wise update.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/aligned_array.h"
#include "base/busy.h"
#include "base/workers.h"
#include "chain/denoiser.h"
#include "chain/kernels.h"
#include "chain/request.h"

namespace pysdk {

// The memory that engines and views point into; it may outlive the chain.
struct ChainBuffers {
  explicit ChainBuffers(const ChainShape& shape);

  AlignedArray<float> input;          // (network batch, C, H, W)
  AlignedArray<float> time;           // (1,)
  AlignedArray<std::int64_t> labels;  // (network batch,)
  AlignedArray<float> output;         // (network batch, out_channels, H, W)
  AlignedArray<float> gradient;       // (batch, C, H, W) with a classifier, else empty
  AlignedArray<float> x;              // (batch, C, H, W)
  AlignedArray<float> d1;             // (batch, C, H, W)
};

// What a chain calls: the network on the whole network batch; if it can, the same on the conditional half
// alone, for rows that are not guided; and a classifier's gradient on the batch.
struct Networks {
  std::shared_ptr<Denoiser> denoiser, conditional, classifier;
};

// Elements of a batch from which on a row's update, some tenths of a second, may be left halfway.
constexpr std::size_t kLongUpdate = std::size_t{1} << 26;

class CpuChain {
 public:
  explicit CpuChain(const ChainShape& shape);

  const ChainShape& shape() const { return shape_; }
  const std::shared_ptr<ChainBuffers>& buffers() const { return buffers_; }
  std::int64_t position() const { return position_; }
  std::int64_t length() const { return length_; }

  // The methods below throw std::runtime_error when another one is running, on whatever thread.
  void attach(Networks networks);
  // Drops the callback of the request, for owners that must break a reference cycle.
  void forget_noise() { request_.noise = nullptr; }
  // Checks the request, sets the labels, x and the first network input. On an error the old chain stays as it
  // was.
  // The watch may end it before it is done; then there is no chain.
  void begin(Request request, Watch& watch);
  // Runs up to `count` rows and returns the rows done so far. When the denoiser, the noise or the watch
  // throws, the state is that before the row, which the next call runs again; only an update that was left
  // halfway, which takes a batch of kLongUpdate elements, needs a new `begin`.
  std::int64_t advance(std::int64_t count, Watch& watch);

 private:
  void call_networks(const Row& row, Watch& watch);
  void run_row(std::size_t index, Watch& watch);
  RowTask image_task(std::size_t index, std::size_t image) const;
  float image_threshold(RowTask& task, std::size_t worker);

  const ChainShape shape_;
  const std::shared_ptr<ChainBuffers> buffers_;
  Workers workers_;
  Networks networks_;
  Request request_;
  AlignedArray<float> d2_, y_, foreign_noise_, foreign_known_;  // empty unless the table uses them
  AlignedArray<float> scratch_;  // dynamic threshold: r and |r| of one image per worker
  std::atomic<std::int64_t> position_{0}, length_{0};
  std::atomic<bool> busy_{false};
};

}  // namespace pysdk
