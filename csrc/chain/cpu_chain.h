// The reverse chain on the CPU: per row one call of the denoiser and one fused, block-wise update.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "chain/aligned_array.h"
#include "chain/kernels.h"
#include "chain/step_table.h"
#include "chain/threads.h"
#include "engine/denoiser.h"

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
  std::size_t elements() const { return static_cast<std::size_t>(batch) * image(); }
};

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

// Whether a row replaces the known region.
inline bool keeps_known(const Row& row) { return row.known != 0.0f || row.known_noise != 0.0f; }

// What a chain calls: the network on the whole network batch; if it can, the same on the conditional half
// alone, for rows that are not guided; and a classifier's gradient on the batch.
struct Networks {
  std::shared_ptr<Denoiser> denoiser, conditional, classifier;
};

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

class CpuChain {
 public:
  explicit CpuChain(const ChainShape& shape);

  const ChainShape& shape() const { return shape_; }
  const std::shared_ptr<ChainBuffers>& buffers() const { return buffers_; }
  std::int64_t position() const { return position_; }
  std::int64_t length() const { return length_; }

  // The methods below throw std::runtime_error when another one is running, on whatever thread.
  void attach(Networks networks);
  // Drops the callback of the program, for owners that must break a reference cycle.
  void forget_noise() { program_.noise = nullptr; }
  // Checks the program, sets the labels, x and the first network input. On an error the old chain stays as it
  // was.
  void begin(Program program);
  // Runs up to `count` rows, calling `poll` before each, and returns the rows done so far. When the denoiser,
  // the noise or `poll` throws, the state is that before the row, which the next call runs again.
  std::int64_t advance(std::int64_t count, const std::function<void()>& poll);

 private:
  void check(const Program& program) const;
  void call_networks(const Row& row);
  void run_row(std::size_t index);
  RowTask image_task(std::size_t index, std::size_t image) const;
  float image_threshold(RowTask& task, std::size_t worker);

  const ChainShape shape_;
  const std::shared_ptr<ChainBuffers> buffers_;
  Threads threads_;
  Networks networks_;
  Program program_;
  AlignedArray<float> d2_, y_, foreign_noise_, foreign_known_;  // empty unless the table uses them
  AlignedArray<float> scratch_;  // dynamic threshold: r and |r| of one image per worker
  std::atomic<std::int64_t> position_{0}, length_{0};
  std::atomic<bool> busy_{false};
};

}  // namespace pysdk
